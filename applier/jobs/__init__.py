"""On-demand jobs: claimed from Insights, made from their CronJobs, waited for and reported."""
