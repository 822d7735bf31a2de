"""Self-attention over the observations of a series (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.nn import functional as F

from models.dropout import Dropout, is_cheap, keep_mask

CHUNK = 1 << 20  # attention weights computed at a time on a CPU, so that they fit its cache
STORED = 1 << 21  # attention weights of a batch up to which the backward pass gets them from the forward pass


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float = 0.0, training: bool = False
) -> Tensor:
    """Scaled dot-product attention of q, k, v (B, H, S, D) -> (B, H, S, D).

    ``mask`` (B, S) is True at the keys to ignore; each row keeps at least one. With None no mask tensor is made, so
    that fused kernels without mask support can be used. In training the attention weights are dropped with probability
    ``dropout_p``: on a CPU by DroppedAttention, as torch's kernel would spend most of its time on random numbers.
    Inference in float32 on a CPU also goes ``in_chunks``, which takes two thirds of the time of torch's kernel (16
    heads of width 8, S = 70).
    """
    dropout_p = dropout_p if training else 0.0
    if is_cheap(q, dropout_p):
        return dropped_attention(q, k, v, mask, dropout_p)
    if not training and is_inference_on_cpu(q):
        return in_chunks(q, k, v, mask)
    takes_part = None if mask is None else ~mask[:, None, None, :]  # (B, 1, 1, S)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=takes_part, dropout_p=dropout_p)


@torch.compiler.disable  # torch.compile would unroll the loop over chunks
def dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """``attention`` in training on a CPU, with a new random dropout mask."""
    return DroppedAttention.apply(q, k, v, mask, keep_mask((*q.shape[:-1], k.shape[2]), p), p)


class DroppedAttention(torch.autograd.Function):
    """Attention with a given dropout mask, a few series at a time.

    The attention weights of a large batch are never stored. The backward pass recomputes them from q and k (as
    FlashAttention does, Dao et al. 2022, section 3.1), which is faster than writing and reading them. Those of a small
    batch, which stay in the cache, are stored; the gradients are the same.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: Tensor, p: float) -> Tensor:
        """q, k, v (B, H, S, D), mask (B, S) or None, keep (B, H, S, S) bool -> (B, H, S, D)."""
        ctx.p = p
        if keep.numel() > STORED:
            ctx.save_for_backward(q, k, v, mask, keep)
            return in_chunks(q, k, v / (1 - p), mask, keep)
        weights = attention_weights(q.flatten(0, 1), k.flatten(0, 1), mask)
        factor = as_factor(keep, weights)
        kept = weights * factor
        ctx.save_for_backward(q, k, v, mask, keep, weights, factor, kept)
        return empty_like_heads(q).copy_((kept @ (v / (1 - p)).flatten(0, 1)).view(q.shape))

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx, grad_out: Tensor) -> tuple:
        q, k, v, mask, keep, *stored = ctx.saved_tensors
        grads = q.new_empty(3, *q.shape)
        scale = q.shape[-1] ** -0.5
        for part in [slice(None)] if stored else chunks(q, k):
            q_, k_, v_, grad = (x[part].flatten(0, 1) for x in (q, k, v, grad_out))
            grad = grad / (1 - ctx.p)
            if stored:
                weights, factor, kept = stored
            else:
                weights = attention_weights(q_, k_, None if mask is None else mask[part])
                factor = as_factor(keep[part], weights)
                kept = weights * factor
            grad_v = kept.mT @ grad
            grad_weights = (grad @ v_.mT).mul_(factor)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            pieces = (grad_scores @ k_.mul(scale), grad_scores.mT @ q_.mul(scale), grad_v)
            for whole, piece in zip(grads, pieces, strict=True):
                whole[part] = piece.view_as(whole[part])
        return *grads, None, None, None


def is_inference_on_cpu(q: Tensor) -> bool:
    """Whether attention of q needs no gradients and is not being compiled, which would unroll the loop over chunks."""
    is_plain = q.dtype == torch.float32 and q.device.type == "cpu"
    return is_plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def in_chunks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: Tensor | None = None) -> Tensor:
    """Attention of q, k, v (B, H, S, D), a few series at a time; weights are 0 where keep (B, H, S, S) is False."""
    out = empty_like_heads(q)
    for part in chunks(q, k):
        q_, k_, v_ = (x[part].flatten(0, 1) for x in (q, k, v))  # (n H, S, D)
        weights = attention_weights(q_, k_, None if mask is None else mask[part])
        if keep is not None:
            weights *= as_factor(keep[part], weights)
        out[part] = (weights @ v_).unflatten(0, out[part].shape[:2])
    return out


def empty_like_heads(q: Tensor) -> Tensor:
    """An empty (B, H, S, D) in whose memory the heads lie side by side, as the output projection reads."""
    return q.new_empty(q.transpose(1, 2).shape).transpose(1, 2)


def chunks(q: Tensor, k: Tensor) -> list[slice]:
    """Slices of the batch with about CHUNK attention weights each, for q (B, H, S, D) and k."""
    count, heads, queries, _ = q.shape
    size = max(1, CHUNK // (heads * queries * k.shape[2]))
    return [slice(start, start + size) for start in range(0, count, size)]


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) of q, k (n H, S, D) with no weight where mask (n, S) is True -> (n H, S, S)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(mask, float("-inf"))
        scores.unflatten(0, (len(mask), -1)).add_(bias[:, None, None])
    return scores.softmax(-1)


def as_factor(keep: Tensor, weights: Tensor) -> Tensor:
    """Mask (n, H, S, S) bool -> 0 and 1 in the shape and type of weights (through uint8, which is faster)."""
    return keep.view(torch.uint8).to(weights.dtype).view_as(weights)


class EncoderLayer(nn.TransformerEncoderLayer):
    """nn.TransformerEncoderLayer (post-norm, ReLU) with the same parameters; ``attention`` computes its attention."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float):
        super().__init__(dim, heads, feedforward, dropout, batch_first=True)
        self.dropout, self.dropout1, self.dropout2 = (Dropout(dropout) for _ in range(3))

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
    """A stack of encoder layers and a final layer normalisation, with the parameter names of nn.TransformerEncoder."""

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
    """Mean of x (B, S, C) over the observations where mask (B, S) is False (None: over all) -> (B, C)."""
    if mask is None:
        return x.mean(1)
    real = (~mask).unsqueeze(-1).to(x.dtype)  # (B, S, 1)
    return (x * real).sum(1) / real.sum(1).clamp(min=1)
