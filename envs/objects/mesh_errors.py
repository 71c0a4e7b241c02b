"""What goes wrong with meshes."""


class MeshError(ValueError):
  """Meshes that cannot be used; the text says which, why, and what to do."""


class MissingLibraryError(MeshError):
  """What reads or decomposes meshes is not installed."""
