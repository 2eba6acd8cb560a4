"""What Hydra finds by itself, in a package of the name that it looks for: `hydra_plugins`."""
