"""The one place that names the version: the package, the commands and the protocol's WELCOME read it here."""

VERSION = "0.1.0"
