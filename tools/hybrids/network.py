"""The architecture ``qwen35`` of llama.cpp in PyTorch: gated delta networks and gated attention with partial RoPE.

Names of modules are those of the tensors in a GGUF file, so that nothing has to be renamed when a model is exported.
Shapes in comments: B texts, T tokens, H heads, D dimensions of a head, C tokens of a chunk, N chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybrids.shape import Shape

__all__ = ["Network"]

CHUNK = 32  # tokens that a gated delta network computes at once


class RMSNorm(nn.Module):
    """Division by the root of the mean square, times a weight."""

    def __init__(self, n: int, eps: float) -> None:
        """Start with weights of one."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        return functional.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps)


class Attention(nn.Module):
    """Attention with norms of queries and keys, RoPE over the first dimensions, and a gate on what comes out."""

    def __init__(self, shape: Shape) -> None:
        """Make the projections."""
        super().__init__()
        self.shape = shape
        n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
        self.attn_q = nn.Linear(shape.n_embd, 2 * n_q, bias=False)  # head by head: query, gate
        self.attn_k = nn.Linear(shape.n_embd, n_kv, bias=False)
        self.attn_v = nn.Linear(shape.n_embd, n_kv, bias=False)
        self.attn_output = nn.Linear(n_q, shape.n_embd, bias=False)
        self.attn_q_norm = RMSNorm(shape.head_dim, shape.norm_eps)
        self.attn_k_norm = RMSNorm(shape.head_dim, shape.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a text from its beginning; x is [B, T, n_embd]."""
        shape, (b, t, _) = self.shape, x.shape
        query, gate = self.attn_q(x).view(b, t, shape.n_head, 2 * shape.head_dim).chunk(2, dim=-1)
        key = self.attn_k(x).view(b, t, shape.n_head_kv, shape.head_dim)
        value = self.attn_v(x).view(b, t, shape.n_head_kv, shape.head_dim)
        cos, sin = self._angles(t)
        query, key = _rotate(self.attn_q_norm(query), cos, sin), _rotate(self.attn_k_norm(key), cos, sin)
        group = shape.n_head // shape.n_head_kv
        key, value = key.repeat_interleave(group, dim=2), value.repeat_interleave(group, dim=2)
        q, k, v = (y.transpose(1, 2).to(value.dtype) for y in (query, key, value))  # [B, H, T, D]
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return self.attn_output((found * torch.sigmoid(gate)).reshape(b, t, -1))  # type: ignore[no-any-return]

    def _angles(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, [T, 1, n_rot / 2]."""
        bands = torch.arange(self.shape.n_rot // 2, dtype=torch.float32)
        frequencies = self.shape.freq_base ** (-2 * bands / self.shape.n_rot)
        angles = torch.outer(torch.arange(n_tokens, dtype=torch.float32), frequencies)[:, None]
        return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first dimensions of [B, T, H, D] in half-split pairs."""
    n = cos.shape[-1]
    first, second, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class DeltaNet(nn.Module):
    """A gated delta network: a short convolution, then a state that is read and corrected token by token."""

    def __init__(self, shape: Shape) -> None:
        """Make the projections."""
        super().__init__()
        self.shape = shape
        n = shape.n_state_head * shape.state_dim
        self.attn_qkv = nn.Linear(shape.n_embd, 3 * n, bias=False)
        self.attn_gate = nn.Linear(shape.n_embd, n, bias=False)
        self.ssm_alpha = nn.Linear(shape.n_embd, shape.n_state_head, bias=False)
        self.ssm_beta = nn.Linear(shape.n_embd, shape.n_state_head, bias=False)
        self.ssm_out = nn.Linear(n, shape.n_embd, bias=False)
        self.ssm_conv1d = nn.Conv1d(3 * n, 3 * n, shape.conv_kernel, groups=3 * n, bias=False)
        self.ssm_norm = RMSNorm(shape.state_dim, shape.norm_eps)
        self.ssm_dt = nn.Parameter(torch.empty(shape.n_state_head).uniform_(-4.0, -2.0))
        self.ssm_a = nn.Parameter(torch.empty(shape.n_state_head).uniform_(-1.5, 0.5))  # ln of the decay's speed

    def forward(self, x: Tensor) -> Tensor:
        """Read a text from its beginning; x is [B, T, n_embd]."""
        shape, (b, t, _) = self.shape, x.shape
        mixed = functional.pad(self.attn_qkv(x).transpose(1, 2), (shape.conv_kernel - 1, 0))
        mixed = functional.silu(self.ssm_conv1d(mixed)).transpose(1, 2).float()
        heads = mixed.view(b, t, 3, shape.n_state_head, shape.state_dim).permute(2, 0, 3, 1, 4)  # [3, B, H, T, D]
        query, key = (_unit(heads[i], shape.norm_eps) for i in (0, 1))
        beta = torch.sigmoid(self.ssm_beta(x).float()).transpose(1, 2)  # [B, H, T]
        decay = -self.ssm_a.exp() * functional.softplus(self.ssm_alpha(x).float() + self.ssm_dt)
        found = delta_rule(query * shape.state_dim**-0.5, key, heads[2], decay.transpose(1, 2), beta)
        gate = functional.silu(self.attn_gate(x).float()).view(b, t, shape.n_state_head, shape.state_dim)
        return self.ssm_out((self.ssm_norm(found.transpose(1, 2)) * gate).reshape(b, t, -1))  # type: ignore[no-any-return]


def _unit(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def delta_rule(query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """Read a state S that starts at zero, chunk by chunk.

    Token by token that is S <- e^decay S, then S <- S + key (beta (value - S^T key))^T, then output S^T query. Within a
    chunk, what the tokens write is the solution of a triangular system (arXiv 2412.06464).

    Args:
        query: [B, H, T, D], scaled.
        key: [B, H, T, D], of length one.
        value: [B, H, T, D].
        decay: [B, H, T], logarithms, not positive.
        beta: [B, H, T].

    Returns:
        [B, H, T, D].
    """
    b, h, t, d = query.shape
    pad = -t % CHUNK
    query, key, value = (functional.pad(x, (0, 0, 0, pad)).view(b, h, -1, CHUNK, d) for x in (query, key, value))
    decay, beta = (functional.pad(x, (0, pad)).view(b, h, -1, CHUNK) for x in (decay, beta))
    total = decay.cumsum(-1)  # [B, H, N, C]
    # from token j to token i, e^(total_i - total_j); above the diagonal nothing
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool).tril()
    between = (total[..., :, None] - total[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    weighted = key * beta[..., None]
    system = ((weighted @ key.mT) * between).tril(-1) + torch.eye(CHUNK)
    right = torch.cat([value * beta[..., None], weighted * total[..., None].exp()], dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    written, removed = solved[..., :d], solved[..., d:]
    inside = (query @ key.mT) * between
    outside = query * total[..., None].exp()
    to_end = key * (total[..., -1:] - total)[..., None].exp()
    state = query.new_zeros(b, h, d, d)  # [key, value]
    found = []
    for n in range(query.shape[2]):
        new = written[:, :, n] - removed[:, :, n] @ state
        found.append(outside[:, :, n] @ state + inside[:, :, n] @ new)
        state = state * total[:, :, n, -1, None, None].exp() + to_end[:, :, n].mT @ new
    return torch.stack(found, dim=2).view(b, h, -1, d)[:, :, :t]


class Layer(nn.Module):
    """Attention or a gated delta network, then a gated feed-forward block."""

    def __init__(self, shape: Shape, layer: int) -> None:
        """Make the parts."""
        super().__init__()
        self.attn_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.mixer = Attention(shape) if shape.has_attention(layer) else DeltaNet(shape)
        self.post_attention_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.ffn_gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what both parts find; x is [B, T, n_embd]."""
        x = x + self.mixer(self.attn_norm(x))
        y = self.post_attention_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y))  # type: ignore[no-any-return]


class Network(nn.Module):
    """A model: token ids to logits."""

    def __init__(self, shape: Shape) -> None:
        """Make a model with small random weights."""
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blk = nn.ModuleList(Layer(shape, i) for i in range(shape.n_layer))
        self.output_norm = RMSNorm(shape.n_embd, shape.norm_eps)
        self.output = nn.Linear(shape.n_embd, shape.n_vocab, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deviation = 1.0 if name.startswith("token_embd") else weight.shape[1] ** -0.5
                into_stream = any(part in name for part in ("attn_output", "ssm_out", "ffn_down"))
                nn.init.normal_(weight, std=deviation * ((2 * shape.n_layer) ** -0.5 if into_stream else 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, n_vocab] of tokens [B, T], each text read from its beginning."""
        x = self.token_embd(tokens)
        for layer in self.blk:
            x = layer(x)
        return self.output(self.output_norm(x))  # type: ignore[no-any-return]
