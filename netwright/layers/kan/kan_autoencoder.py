"""KAN autoencoder: a KAN to a narrow code and a KAN back, in place of a convolutional autoencoder (Moradi et al., 2024).

    z = encode(x),   y = decode(z)

each one layer of functions on edges, or two with a hidden width between them. A recipe: any linear layer of the catalogue
can be what it is made of. An image is one row of its pixels.

Shape suffixes: B rows, I inputs, Z values of a code.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer
from netwright.tensor.modules import drawn


@final
class KanAutoencoder(Layer):
    """y = decode(encode(x)): (..., d) -> (..., latent) -> (..., d), d = d_in = d_out.

    latent: width of a code; hidden: width between two layers each way, 0 for one layer each way; edges: the layer they are,
    as it is by default, e.g. "kan", "fast-kan", "affine"; sigmoid: whether outputs are brought into 0 to 1. Raises BadInput
    where d_out isn't d_in, and where `edges` isn't a layer of the shape class linear.
    """

    def __init__(
        self, d_in: int, d_out: int, *, latent: int = 16, hidden: int = 0, edges: str = "kan", sigmoid: bool = False
    ) -> None:
        super().__init__()
        if d_out != d_in:
            raise BadInput(f"layer/kan-autoencoder: d_out={d_out} with d_in={d_in}; it gives back what it gets: make them equal")
        build = _builder(edges)
        inner = (hidden,) if hidden else ()
        ways = ((d_in, *inner, latent), (latent, *inner, d_in))
        self.encoder, self.decoder = (nn.Sequential(*(build(a, b) for a, b in zip(way, way[1:], strict=False))) for way in ways)
        self.sigmoid = sigmoid

    @property
    def quantities(self) -> dict[str, float]:
        inside: list[Any] = [*self.encoder, *self.decoder]
        costs = {f"{what}_inside": sum(m.part.cost(m, what) for m in inside) for what in ("parameters", "products")}
        return {**super().quantities, **costs}

    def encode(self, x: Tensor) -> Tensor:
        """The codes (..., latent) of x (..., d)."""
        z: Tensor = self.encoder(x)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """What codes (..., latent) stand for: (..., d)."""
        y: Tensor = self.decoder(z)
        return torch.sigmoid(y) if self.sigmoid else y

    def compute(self, x_BI: Tensor) -> Tensor:
        return self.decode(self.encode(x_BI))


def _builder(edges: str) -> Any:
    """What builds the layer called `edges`, from two sizes."""
    try:
        part: Any = catalogue.get(edges if "/" in edges else f"layer/{edges}")
    except UnknownName as error:
        raise BadInput(f"layer/kan-autoencoder: edges={edges!r}; {error}") from None
    if part.kind != "layer" or part.tags.shape != "linear" or part.cls is KanAutoencoder:
        raise BadInput(f"layer/kan-autoencoder: edges={edges!r}; expected a layer (..., d_in) -> (..., d_out), as kan is")
    return part.build


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    for inner in (*layer.encoder, *layer.decoder):
        x_BI = inner.part.reference(inner, x_BI)
    return 1 / (1 + torch.exp(-x_BI)) if layer.options["sigmoid"] else x_BI


def claim_bottleneck() -> bool:
    """All goes through the code: the derivative of the output by the input has no more than the code's rank."""
    coder = drawn(KanAutoencoder, 6, 6, latent=2, hidden=5, sigmoid=True).requires_grad_(False)
    x_BI = torch.linspace(-0.9, 0.9, 6, dtype=torch.float64).repeat(6, 1).requires_grad_()
    (slopes,) = torch.autograd.grad(coder(x_BI).diagonal().sum(), x_BI)  # row i is the derivative of output i
    through = torch.equal(coder.decode(coder.encode(x_BI)), coder(x_BI)) and coder.encode(x_BI).shape == (6, 2)
    return through and int(torch.linalg.matrix_rank(slopes, rtol=1e-10)) == 2


def claim_codes() -> bool:
    """The official nets: one KAN each way, as many parameters as two layers of d times latent edges have."""
    coder = drawn(KanAutoencoder, 12, 12, latent=3)
    kans = [m for m in coder.modules() if m is not coder and hasattr(m, "part")]
    return [tuple(m.sizes.values()) for m in kans] == [(12, 3), (3, 12)] and {m.part.id for m in kans} == {"layer/kan"}


PART = layer(
    KanAutoencoder,
    name="kan-autoencoder",
    reference=reference,
    formula=r"\mathrm{decode}(\mathrm{encode}(x))",
    paper=Paper("kan-autoencoder"),
    tags=Tags(nonlinear=True, slot=""),
    toy={"d_in": 5, "d_out": 5, "latent": 3},
    options=(
        Option("latent", 16, "width of a code", bounds=(0, 100000), search=(4, 64, "log")),
        Option("hidden", 0, "width between two layers each way; 0: one layer each way", bounds=(-1, 1000000)),
        Option("edges", "kan", "the layer it is made of, by its name in the catalogue", names="layer"),
        Option("sigmoid", False, "outputs in 0 to 1", allowed=(False, True)),
    ),
    settings=({"hidden": 4, "sigmoid": True}, {"edges": "affine"}),
    parameters="parameters_inside",
    products="products_inside",
    elementwise="sigmoid * d_in",
    claims=(
        Claim("bottleneck", "all goes through the code", check=claim_bottleneck),
        Claim("codes", "one KAN each way, as in the official nets", check=claim_codes),
    ),
    deviations=(
        "the code holds a linear map and a ReLU in each half that nothing uses; they are left out",
        "any layer can take the KAN's place, there can be a hidden width, and a sigmoid",
    ),
)
