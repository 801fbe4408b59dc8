"""The joint model of the embedded encoder: a text and a picture's cells, read together, to one number (see its card).

Only what depends on both is computed for each picture. Until the first cross-attention the text is read once for all of
them; keys and values of the cells are never made, since ``q (c W)' = (q W') c'``; and of the last layer only the start
token is needed. That halves the work.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.errors import ModelBroken

PREFIX = "cross."
HEADS = 4


class JointModel(nn.Module):
    """Built from the tensors ``cross.*`` of the file beside the embedded model's weights, in fp32.

    Parameters
    ----------
    weights
        By name, without the prefix.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        n_cells, width = weights["pos"].shape
        n_text, n_layers = weights["txt.weight"].shape[1], sum(name.endswith(".n1.weight") for name in weights)
        with torch.device("meta"):  # random weights would move the caller's random numbers
            self.cls = nn.Parameter(torch.empty(width))
            self.pos = nn.Parameter(torch.empty(n_cells, width))
            channels = weights["img.1.weight"].shape[1]
            self.img = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
            self.imn = nn.LayerNorm(width)
            self.txt = nn.Linear(n_text, width)
            self.layers = nn.ModuleList(Layer(width) for _ in range(n_layers))
            self.nf = nn.LayerNorm(width)
            self.out = nn.Linear(width, 1)
        self.load_state_dict(weights, assign=True)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, file: Path) -> JointModel | None:
        """Read the model; None if the file has none.

        Raises
        ------
        ModelBroken
            If the file has only some of it.
        """
        from safetensors.torch import load_file

        weights = {
            name.removeprefix(PREFIX): value.float()
            for name, value in load_file(file).items()
            if name.startswith(PREFIX)
        }
        try:
            return cls(weights) if weights else None
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelBroken(f"the joint model in {file} is not whole ({reason}): fetch the model again") from error

    @property
    def shape(self) -> tuple[int, int]:
        """Cells of a picture and numbers a cell."""
        n_cells, width = self.pos.shape
        return int(n_cells), int(width)

    def cells(self, grid: Tensor) -> Tensor:
        """The image tower's grid before pooling, (n, channels, rows, columns), to (n, n_cells, width)."""
        cells: Tensor = self.imn(self.img(grid.float().flatten(2).transpose(1, 2)) + self.pos)
        return cells

    def match(self, states: Tensor, cells: Tensor) -> Tensor:
        """How well a text goes with each of n pictures, as logits, (n,).

        Parameters
        ----------
        states
            The text tower's states after its last norm, of the start token to the end token without padding,
            (1, n_tokens, n_text).
        cells
            (n, n_cells, width).
        """
        x = torch.cat([self.cls.reshape(1, 1, -1), self.txt(states.float())], dim=1)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, cells, only_first=number == last)
        logits: Tensor = self.out(self.nf(x[:, 0]))
        return logits[:, 0]


class Layer(nn.Module):
    """Self-attention over the text, cross-attention to the cells, MLP, each after its norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n1, self.n2, self.n3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q, self.kv, self.o2 = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, cells: Tensor, only_first: bool) -> Tensor:
        """A text for each picture, or one for all, (n or 1, n_tokens, width), to (n, n_tokens or 1, width)."""
        read = self.n1(x)
        if only_first:
            x = x[:, :1]
        x = x + self.o(self._among_words(read, x.shape[1] if only_first else read.shape[1]))
        x = x + self.o2(self._to_cells(self.q(self.n2(x)), cells))
        given: Tensor = x + self.mlp(self.n3(x))
        return given

    def _among_words(self, read: Tensor, n: int) -> Tensor:
        """What the first n tokens find among all."""
        width = self.o.in_features
        weight, bias = self.qkv.weight, self.qkv.bias
        q = _by_head(functional.linear(read[:, :n], weight[:width], bias[:width]))
        k, v = map(_by_head, functional.linear(read, weight[width:], bias[width:]).chunk(2, dim=-1))
        found: Tensor = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=-1) @ v
        return found.transpose(1, 2).flatten(2)

    def _to_cells(self, q: Tensor, cells: Tensor) -> Tensor:
        """What tokens find in the cells.

        The bias of the keys is left out: it adds the same to all cells of a token, which softmax ignores.
        """
        width, n_tokens = self.o2.in_features, q.shape[1]
        size = width // HEADS
        keys, values = self.kv.weight.reshape(2, HEADS, size, width)
        asked = q.reshape(-1, HEADS, size).transpose(0, 1) @ (keys * size**-0.5)  # (heads, n * n_tokens, width)
        asked = asked.reshape(HEADS, -1, n_tokens, width).transpose(0, 1).flatten(1, 2)
        seen = (asked @ cells.transpose(1, 2)).softmax(dim=-1) @ cells  # (n, heads * n_tokens, width)
        seen = seen.reshape(-1, HEADS, n_tokens, width).transpose(0, 1).reshape(HEADS, -1, width)
        found: Tensor = (seen @ values.transpose(1, 2)).reshape(HEADS, -1, n_tokens, size)
        return found.permute(1, 2, 0, 3).flatten(2) + self.kv.bias[width:]


def _by_head(rows: Tensor) -> Tensor:
    """(n, n_tokens, width) to (n, heads, n_tokens, width / heads)."""
    return rows.reshape(*rows.shape[:2], HEADS, -1).transpose(1, 2)
