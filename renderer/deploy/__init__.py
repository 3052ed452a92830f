"""What runs in the cluster, as manifests: their values, and the files made of them."""
