"""A decoder transformer as a Hugging Face `config.json` of model_type "llama" describes it, in plain PyTorch.

It computes what `serried plan config.json --train` is asked about, no more: RMS norms, rotary positions, grouped-query
attention, a gated MLP, tied or untied ends. Shapes: B = sequence, T = token, H = head, D = width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder", "read_config"]

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
           "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "vocab_size")


def read_config(path: Path) -> dict[str, Any]:
    """The model's config. Raises SystemExit, with the missing keys, for one that is not of this form."""
    config = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in _NEEDED if key not in config]
    if config.get("model_type") != "llama" or missing:
        raise SystemExit(f"{path}: model_type must be 'llama' (it is {config.get('model_type')!r}); "
                         f"missing keys: {', '.join(missing) or 'none'}")
    return config


class Decoder(nn.Module):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, vocabulary = config["hidden_size"], config["vocab_size"]
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(hidden, eps=config["rms_norm_eps"])
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        if config["tie_word_embeddings"]:
            self.head.weight = self.embedding.weight
        cosine, sine = _rotary_tables(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every place."""
        length = tokens.shape[1]
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden, self.cosine[:length], self.sine[:length])
        return self.head(self.norm(hidden))


class _Block(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, width = config["hidden_size"], config["intermediate_size"]
        self.heads, self.shared_heads, self.head_width = (
            config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"])
        self.attention_norm = nn.RMSNorm(hidden, eps=config["rms_norm_eps"])
        self.query_key_value = nn.Linear(hidden, (self.heads + 2 * self.shared_heads) * self.head_width, bias=False)
        self.attention_out = nn.Linear(self.heads * self.head_width, hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden, eps=config["rms_norm_eps"])
        self.gate_up = nn.Linear(hidden, 2 * width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        hidden = hidden + self._attention(self.attention_norm(hidden), cosine, sine)
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up)

    def _attention(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        packed = self.query_key_value(hidden).view(batch, length, -1, self.head_width).transpose(1, 2)
        query, key, value = packed.split([self.heads, self.shared_heads, self.shared_heads], dim=1)
        query, key = _rotated(query, cosine, sine), _rotated(key, cosine, sine)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True,
                                                        enable_gqa=self.heads != self.shared_heads)
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, length, -1))


def _rotary_tables(config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cosine and sine (T, D) of the angle of every position; halves of D share their frequencies."""
    half = torch.arange(0, config["head_dim"], 2, dtype=torch.float32) / config["head_dim"]
    angle = torch.outer(torch.arange(config["max_position_embeddings"], dtype=torch.float32),
                        config["rope_theta"] ** -half)
    doubled = torch.cat((angle, angle), dim=-1)
    return doubled.cos(), doubled.sin()


def _rotated(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions: pairs (x, y) of the two halves of D turned by the angle of their position."""
    first, second = part.chunk(2, dim=-1)
    return part * cosine + torch.cat((-second, first), dim=-1) * sine
