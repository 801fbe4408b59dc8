"""Cells of pictures and words of texts in one space, for late interaction, from the towers' last layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

HEADS_FILE = "reranker.safetensors"
FINE = 9 / 7
"""How much larger than usual the embedded model reads a picture for its cells: 9 x 9 of them instead of 7 x 7. The
vector of the whole picture gains as well: Flickr8k dev R@1/5/10 29.9/61.1/72.5 -> 31.1/62.0/74.5 (see
``benchmarks/cascade.py``), as Touvron et al. (NeurIPS 2019, section 3) found of networks trained on random crops."""


class CellHeads(Protocol):
    """Gives rows that are not yet of unit length; ``dim`` numbers each of a cell or a word.

    ``scale`` is the size at which pictures are read for cells, by that for their vectors.
    """

    dim: int
    scale: float

    def cells(self, model: torch.nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A normalised batch of pictures to the whole pictures' vectors, (n, width), and (n, n_cells, dim)."""
        ...

    def words(self, model: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        """The text tower's states, (n, context, width), to (n, context, dim)."""
        ...

    def to(self, model: torch.nn.Module) -> CellHeads:
        """The heads on the model's device, in its precision."""
        ...


class TrainedHeads:
    """The late-interaction heads that lie beside the embedded model's weights (see its card)."""

    def __init__(self, image: torch.nn.Linear, text: torch.nn.Linear) -> None:
        self.image, self.text = image, text
        self.dim, self.scale = int(image.out_features), FINE

    @classmethod
    def load(cls, file: Path) -> TrainedHeads:
        """Read ``late.img`` and ``late.txt``."""
        from safetensors.torch import load_file

        tensors = load_file(file)
        return cls(_linear(tensors, "late.img"), _linear(tensors, "late.txt"))

    def cells(self, model: torch.nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the grid before pooling, row by row from the top left."""
        visual: Any = model.visual
        grid = visual.trunk.forward_features(batch)  # (n, channels, height, width)
        return visual.head(visual.trunk.forward_head(grid)), self.image(grid.flatten(2).transpose(1, 2))

    def words(self, model: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        """Through the head for texts."""
        words: torch.Tensor = self.text(states)
        return words

    def to(self, model: torch.nn.Module) -> TrainedHeads:
        """The heads on the model's device, in its precision."""
        like = next(model.parameters())
        return TrainedHeads(self.image.to(like), self.text.to(like))


class ProjectedHeads:
    """Patches and tokens through the projections that a CLIP vision transformer has for its pooled vectors.

    Nobody trained them for single patches; how much they help is for an evaluation to say.
    """

    def __init__(self, dim: int) -> None:
        self.dim, self.scale = dim, 1.0  # its positions are learned for one size

    def cells(self, model: torch.nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the last block, after its norm: the patches, without the class token."""
        found: Any = model.forward_intermediates(  # type: ignore[operator]
            image=batch, image_indices=1, image_output_fmt="NLC", normalize_intermediates=True
        )
        patches: torch.Tensor = found["image_intermediates"][-1]
        return found["image_features"], patches @ model.visual.proj.to(patches.dtype)  # type: ignore[operator, union-attr]

    def words(self, model: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        """Through the projection of texts."""
        projection: Any = getattr(model, "text", model).text_projection
        words: torch.Tensor = projection(states) if callable(projection) else states @ projection.to(states.dtype)
        return words

    def to(self, model: torch.nn.Module) -> ProjectedHeads:
        """Nothing to move: the projections are the model's own."""
        return self


def heads_of(model: torch.nn.Module, source: str | None, dim: int) -> CellHeads | None:
    """The heads of a model: trained ones in its folder, or its own projections; None if it has neither."""
    file = heads_file(source)
    if file is not None:
        return TrainedHeads.load(file)
    projections = getattr(model.visual, "proj", None), getattr(getattr(model, "text", model), "text_projection", None)
    if None in projections or not hasattr(model.visual, "ln_post") or not hasattr(model, "forward_intermediates"):
        return None
    return ProjectedHeads(dim)


def heads_file(source: str | None) -> Path | None:
    """The file of trained heads in a model's folder, if there is one."""
    file = Path((source or "").removeprefix("local-dir:")) / HEADS_FILE
    return file if source is not None and file.is_file() else None


def read_texts(model: torch.nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, (n, context), to (n, dim) vectors and, after the last norm, (n, context, width) states."""
    found: Any = model.forward_intermediates(  # type: ignore[operator]
        text=ids, text_indices=1, normalize_intermediates=True, normalize=False
    )
    return found["text_features"], found["text_intermediates"][-1]


def _linear(tensors: dict[str, torch.Tensor], name: str) -> torch.nn.Linear:
    import torch

    weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear.eval().requires_grad_(False)
