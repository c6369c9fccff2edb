"""One labelled execution of a network: what runs it, what its code asks for, and how it is left as it was."""
