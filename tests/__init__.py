"""A package, so that none of this name that another project installs is found first (Ultralytics 8.4.150 does)."""
