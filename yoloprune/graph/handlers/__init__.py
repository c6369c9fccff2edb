"""Attributes of other libraries' modules that must follow, imported when such a module is first seen."""
