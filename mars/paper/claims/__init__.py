"""What our numbers say of the paper: claims and cell by cell."""
