"""Read the wheel's dependencies from requirements.in, so that they are named once."""

from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class RequirementsHook(MetadataHookInterface):
    """Fill `dependencies` with the hand-written list."""

    def update(self, metadata: dict) -> None:
        """Set `dependencies`: requirements.in without comments and blank lines."""
        lines = (Path(self.root) / "requirements.in").read_text().splitlines()
        stripped = (line.split("#")[0].strip() for line in lines)
        metadata["dependencies"] = [line for line in stripped if line]
