"""A package, so that none of this name, which some projects install by mistake, is found first."""
