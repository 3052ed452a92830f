"""What the changes of a plan would newly block, report or let through of what runs already."""
