"""Relationship descriptors: by hand, and against the joined form that the codes write."""

import pytest
import torch
from torch import nn

from ovseg_cli.core.nn.descriptors import AttentionConcatLearner, Descriptor, SelfAttentionLearner

DIM, HEADS = 8, 2


def inputs(rows=5, batch=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, DIM, generator=generator), torch.randn(rows, DIM, generator=generator)


@torch.no_grad()
def test_by_hand():
    # g = (2, 3), t = (5, 7). Weights 1, 10, 100, 1000 on the joined vector, bias 1:
    # product [10, 21, 5, 7]: 10 + 210 + 500 + 7000 + 1;  concat [2, 3, 5, 7]: 2 + 30 + 500 + 7000 + 1
    weight = torch.tensor([[1.0, 10, 100, 1000], [0, 0, 0, 0]])
    for kind, columns, expected in (("product", 4, 7721), ("concat", 4, 7533), ("text", 2, 5 + 70 + 1)):
        descriptor = Descriptor(2, kind)
        descriptor.q_proj.weight.copy_(weight[:, :columns])
        descriptor.q_proj.bias.fill_(1)
        queries = descriptor(torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]]))
        assert queries.tolist() == [[[expected, 1]]]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["product", "concat"])
def test_the_split_product_is_that_of_the_joined_vectors(kind):
    descriptor, (picture, rows) = Descriptor(DIM, kind), inputs()
    text = rows.expand(3, -1, -1)
    ahead = picture[:, None] * text if kind == "product" else picture[:, None].expand(-1, 5, -1)
    expected = descriptor.q_proj(torch.cat([ahead, text], dim=-1))
    torch.testing.assert_close(descriptor(picture, rows), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_alone_does_not_know_the_picture():
    descriptor, (picture, rows) = Descriptor(DIM, "text"), inputs()
    queries = descriptor(picture, rows)
    assert queries.shape == (3, 5, DIM) and queries[0].equal(queries[1])


def attended(learner, x):
    """Norm of x and what torch's own attention reads from it."""
    attention, reference = learner.attention, nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    parts = (attention.q, attention.k, attention.v)
    reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    reference.out_proj.load_state_dict(attention.proj.state_dict())
    return learner.norm(x + reference(x, x, x)[0])


@torch.no_grad()
def test_figure_5_left_is_descriptors_then_attention():
    learner, (picture, rows) = SelfAttentionLearner(DIM, HEADS, 0.0), inputs()
    text = rows.expand(3, -1, -1)
    x = learner.input_proj(torch.cat([picture[:, None] * text, text], dim=-1))
    torch.testing.assert_close(learner(picture, rows), attended(learner, x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_figure_5_right_is_attention_then_descriptors():
    learner, (picture, rows) = AttentionConcatLearner(DIM, HEADS, 0.0), inputs()
    text = rows.expand(3, -1, -1)
    met = attended(learner, picture[:, None] * text)
    expected = learner.q_proj(torch.cat([met, text], dim=-1))
    torch.testing.assert_close(learner(picture, rows), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("make", [SelfAttentionLearner, AttentionConcatLearner])
def test_learners_drop_values_in_training_alone(make):
    learner, (picture, rows) = make(DIM, HEADS, 0.5), inputs()
    learner.eval()
    assert learner(picture, rows).equal(learner(picture, rows))
    learner.train()
    assert not learner(picture, rows).equal(learner(picture, rows))
