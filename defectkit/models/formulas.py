"""A Transformer encoder that reads pairs of formulas, and the two tasks that teach it elements.

A pair is a sentence of tokens, [CLS] first formula [SEP] second formula [SEP]. A token is an
element; its amount enters as a learned vector that is added, and so does the formula (first or
second) that it stands in. Nothing says where in a formula it stands: a formula is a set.

The encoder and its tasks follow Sun and Yuan, Acta Phys. Sin. 72, 028901 (2023), who took them from
BERT (Devlin et al., 2019).

Axes: B pairs, K elements of the longest formula, T = 2 K + 3 tokens, D hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

N_ELEMENTS = 118
END, MASK, CLS, SEP = 0, 119, 120, 121  # beside the elements, which are called by their number
N_TOKENS = 122
MANY = 20  # amounts above count as this one
MASKED, CHANGED, KEPT = 0.15, 0.1, 0.1  # shares: of elements, and of those


class Formulas(NamedTuple):
    """Formulas as tensors: `z` (B, K) atomic numbers, `amount` (B, K), zeros behind."""

    z: Tensor
    amount: Tensor


class Sentences(NamedTuple):
    """Pairs as the encoder reads them: `token`, `amount` and `segment`, (B, T) each."""

    token: Tensor
    amount: Tensor
    segment: Tensor


class Guess(NamedTuple):
    """`element` (B, T, 118) and `alike` (B,): logits of which element, and whether groups agree."""

    element: Tensor
    alike: Tensor


def sentences(first: Formulas, second: Formulas) -> Sentences:
    """Pairs of formulas as sentences."""
    rows = len(first.z)

    def column(token: int) -> Tensor:
        return first.z.new_full((rows, 1), token)

    nothing = column(0)
    token = torch.cat([column(CLS), first.z, column(SEP), second.z, column(SEP)], dim=1)
    amount = torch.cat([nothing, first.amount, nothing, second.amount, nothing], dim=1)
    place = torch.arange(token.shape[1], device=token.device)
    segment = (place > first.z.shape[1] + 1).long().expand_as(token)
    return Sentences(token, amount.clamp(max=MANY), segment)


def masked(token: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens of which some are hidden, and which these are, (B, T) each.

    15 % of the elements are asked for. Of these 80 % become [MASK], 10 % another element drawn at
    random, and 10 % stay as they are, so that the encoder must not trust what it sees.
    """
    chance, what = torch.rand((2, *token.shape), generator=generator)
    asked = (chance < MASKED) & (token > END) & (token < MASK)
    other = torch.randint(1, MASK, token.shape, generator=generator)
    hidden = torch.where(what < CHANGED, other, torch.where(what < 1 - KEPT, MASK, token))
    return torch.where(asked, hidden, token), asked


class FormulaEncoder(nn.Module):
    """BERT on formulas: an encoder, and a head for each task.

    The head of the first task compares a token with the vectors of all elements, so that these
    are what is learned and nothing stands between.

    Args:
        hidden: D, dimensions of a token.
        layers: blocks of the encoder.
        heads: of attention in each.
    """

    def __init__(self, hidden: int = 16, layers: int = 8, heads: int = 8):
        super().__init__()
        self.tokens = nn.Embedding(N_TOKENS, hidden, padding_idx=END)
        self.amounts = nn.Embedding(MANY + 1, hidden, padding_idx=0)
        self.segments = nn.Embedding(2, hidden)
        block = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            block, layers, nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        self.bias = nn.Parameter(torch.zeros(N_ELEMENTS))
        self.heads = nn.ModuleDict(
            {"element": nn.Linear(hidden, hidden), "alike": nn.Linear(hidden, 1)}
        )

    def forward(self, pairs: Sentences) -> Guess:
        """Guesses for every token and every pair."""
        x = self.tokens(pairs.token) + self.amounts(pairs.amount) + self.segments(pairs.segment)
        x = self.encoder(x, src_key_padding_mask=pairs.token == END)
        element = functional.linear(self.heads["element"](x), self.vectors, self.bias)
        return Guess(element, self.heads["alike"](x[:, 0]).squeeze(-1))

    @property
    def vectors(self) -> Tensor:
        """(118, D) vectors of the elements by atomic number, from hydrogen on."""
        return self.tokens.weight[1:MASK]


def task_losses(guess: Guess, token: Tensor, asked: Tensor, alike: Tensor) -> dict[str, Tensor]:
    """Cross entropies, nats: "element" a masked element, "groups" a pair.

    Args:
        guess: of the encoder.
        token: (B, T) as they were before they were masked.
        asked: (B, T) bool, which elements count.
        alike: (B,) bool, whether the formulas of a pair hold elements of the same groups.
    """
    element = functional.cross_entropy(guess.element[asked], token[asked] - 1, reduction="sum")
    return {
        "element": element / asked.sum().clamp(min=1),
        "groups": functional.binary_cross_entropy_with_logits(guess.alike, alike.float()),
    }
