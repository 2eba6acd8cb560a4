"""Questions about a graph, and changes to it that leave its numbers as they are."""
