"""Self-attention over the observations of a series (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float = 0.0, training: bool = False
) -> Tensor:
    """Scaled dot-product attention of q, k, v (B, H, S, D) -> (B, H, S, D).

    ``mask`` (B, S) is True at the keys to leave out, at most all but one in a row. None leaves out nothing, and
    then no mask tensor exists, so that the fused kernels that take none stay usable. In training the attention
    weights are dropped with probability ``dropout_p``.
    """
    takes_part = None if mask is None else ~mask[:, None, None, :]  # (B, 1, 1, S)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=takes_part, dropout_p=dropout_p if training else 0.0)


class EncoderLayer(nn.TransformerEncoderLayer):
    """PyTorch's post-norm ReLU encoder layer, parameters and all, with the attention done by ``attention``."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float):
        super().__init__(dim, heads, feedforward, dropout, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, dim), mask (B, S) True at padding or None -> (B, S, dim)."""
        x = self.norm1(x + self.dropout1(self.attend(x, mask)))
        return self.norm2(x + self.dropout2(self.linear2(self.dropout(F.relu(self.linear1(x))))))

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        weights = self.self_attn
        packed = F.linear(x, weights.in_proj_weight, weights.in_proj_bias)  # (B, S, 3 * dim)
        q, k, v = packed.unflatten(-1, (3, weights.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, S, D)
        attended = attention(q, k, v, mask, weights.dropout, self.training)
        return weights.out_proj(attended.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A stack of encoder layers and a final layer normalisation; parameters named as in nn.TransformerEncoder."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, num_layers: int = 1):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, feedforward, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, dim), mask (B, S) True at padding or None -> (B, S, dim)."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real observations of x (B, S, C), where mask (B, S) is not True (None: all) -> (B, C)."""
    if mask is None:
        return x.mean(1)
    real = (~mask).unsqueeze(-1).to(x.dtype)  # (B, S, 1)
    return (x * real).sum(1) / real.sum(1).clamp(min=1)
