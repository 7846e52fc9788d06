"""What is deployed: the manifest, its routes, and the folder that holds them."""
