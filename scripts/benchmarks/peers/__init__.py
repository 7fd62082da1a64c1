"""What zmule is measured against, one module each; `plan.Peer` tells what such a module has.

Each is used as its own documentation does: defaults, but for where data goes, and what makes it durable
where zmule's is.
"""
