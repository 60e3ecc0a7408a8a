"""The peers: the same conversions sent by other people's code, in an environment of theirs.

Each is configured as its documentation shows, and then for speed where it lets one:
what was set, and what a peer cannot be told, stands in its module.
"""
