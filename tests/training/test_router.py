import pytest

torch = pytest.importorskip("torch")

from training import recipe  # noqa: E402
from training.recipe import Recipe  # noqa: E402
from training.router import Evidence, easiness_quantiles, router_loss, train_router  # noqa: E402


def test_router_loss_by_hand():
    easiness = torch.tensor([1.0, 0.0, 0.5])
    first, second = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([5.0, 3.0, 1.0])
    # median 0.4: 1 - 0.2; 3 + 0.2; half of 2 - 0.2 and half of 1 + 0.2
    expected = (0.8 + 3.2 + 1.5) / 3
    assert router_loss(easiness, first, second, 0.4).item() == pytest.approx(expected)


def test_router_loss_does_not_care_at_the_median_gain():
    first, second = torch.tensor([1.5]), torch.tensor([1.0])
    losses = [router_loss(torch.tensor([e]), first, second, 0.5).item() for e in (0.0, 0.3, 1.0)]
    assert losses == pytest.approx([1.25, 1.25, 1.25])


def test_the_router_learns_which_half_gains_less():
    model = recipe.build()
    generator = torch.Generator().manual_seed(1)
    pooled = torch.rand(200, model.plan.router_channels, generator=generator)
    gain = pooled[:, 0]  # all gain, some more than others
    evidence = Evidence(pooled, 1 + gain, torch.ones(200))
    train_router(model, evidence, Recipe(router_epochs=20, router_rate=2e-4), seed=0)
    assert model.router is not None
    easiness = model.router(pooled)[:, 0]
    assert easiness[gain < 0.3].mean() > easiness[gain > 0.7].mean() + 0.2
    quantiles = easiness_quantiles(model, evidence)
    assert quantiles == sorted(quantiles)
    assert not any(parameter.requires_grad for parameter in model.router.parameters())
