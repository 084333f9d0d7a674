"""What a part is: frozen records that know nothing of torch.

A *part* is one idea from one paper. Its file declares one of these records last, below the mathematics;
everything else (lists, tests, pages, status) is derived from the declaration. A declaration is the record's constructor:
`PART = activation(golu, cls="GoLU", ...)`, where `activation` is the class of the kind's records.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netwright.core.errors import BadInput

SLUG = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")


@dataclass(frozen=True)
class Paper:
    """Where an idea comes from: the slug of a corpus paper, or a full inline reference."""

    slug: str = ""
    title: str = ""
    authors: str = ""
    year: int = 0
    arxiv: str = ""
    venue: str = ""
    code: str = ""
    equation: str = ""

    def __post_init__(self) -> None:
        if not self.slug and not (self.title and self.authors and self.year):
            raise BadInput("Paper needs the slug of a corpus paper, or title=, authors= and year=")
        if self.slug and not SLUG.fullmatch(self.slug):
            raise BadInput(f"Paper slug {self.slug!r} is not a slug (lower case letters, digits, '-')")


@dataclass(frozen=True)
class Protocol:
    """A claim that needs training to judge, as pure data: it becomes a Study."""

    task: str
    against: str
    expect: str  # "better", "worse", "not better", "not worse", "equivalent"
    seeds: int = 10
    trials: int = 5
    size: str = "small"
    match: str = "params"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        allowed = ("better", "worse", "not better", "not worse", "equivalent")
        if self.expect not in allowed:
            raise BadInput(f"Protocol expect={self.expect!r}; allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class Claim:
    """What the paper says of its part; `check()` returns True (at most 0.2 s, seeded), or a protocol judges it."""

    name: str
    text: str
    where: str = ""
    check: Callable[[], bool] | None = None
    protocol: Protocol | None = None

    def __post_init__(self) -> None:
        if (self.check is None) == (self.protocol is None):
            raise BadInput(f"Claim {self.name!r} needs exactly one of check= and protocol=")


@dataclass(frozen=True)
class Identity:
    """This part with `options` equals part `other` with `other_options`, within `tolerance` relative, on x in `domain`.

    `scale_x` and `scale_y`: f(x) = scale_y * other(scale_x * x).
    """

    other: str
    options: Mapping[str, Any] = field(default_factory=dict)
    other_options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-6
    domain: tuple[float, float] = (-10.0, 10.0)
    scale_x: float = 1.0
    scale_y: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A worked vector example for parts whose argument is not one number."""

    input: Any
    output: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Learn:
    """A learnable parameter of an activation.

    init: a number, a tuple of numbers (a vector of coefficients), or a function of the part's resolved options giving one.

    per: "tensor" (one for the whole module) or "channel" (one a channel; needs channels=).
    bounds: closed interval kept by clamping in the forward pass. decay: whether weight decay should touch it.
    """

    name: str
    init: float | tuple[float, ...] | Callable[[Mapping[str, Any]], float | tuple[float, ...]]
    per: str = "tensor"
    bounds: tuple[float, float] | None = None
    decay: bool = False

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "channel"):
            raise BadInput(f"Learn({self.name!r}) per={self.per!r}; allowed: 'tensor', 'channel'")


@dataclass(frozen=True)
class State:
    """A running statistic of a stateful activation: a buffer, one number for the module or one a channel."""

    name: str
    init: float
    per: str = "channel"

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "channel"):
            raise BadInput(f"State({self.name!r}) per={self.per!r}; allowed: 'tensor', 'channel'")


@dataclass(frozen=True)
class Option:
    """A keyword a part takes when built. `search`: (lo, hi, "log"|"linear") makes it a tuning dimension.

    names: the kind whose parts it names, where its value is the name of one; that part's fingerprint then counts too.
    """

    name: str
    default: Any
    help: str = ""
    allowed: tuple[Any, ...] | None = None
    bounds: tuple[float, float] | None = None  # open interval: lo < value < hi
    search: tuple[float, float, str] | None = None
    names: str = ""

    def check(self, value: Any, owner: str) -> Any:
        """The value, with whole numbers made floats where the default is one; raises BadInput naming owner and option."""
        if value is None and self.allowed and "none" in self.allowed:
            value = "none"  # as text, "none" reads as None
        if self.allowed is not None and value not in self.allowed:
            raise BadInput(f"{owner}: {self.name}={value!r}; allowed: {', '.join(map(repr, self.allowed))}")
        if self.bounds is not None:
            lo, hi = self.bounds
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not lo < value < hi:
                raise BadInput(f"{owner}: {self.name}={value!r}; allowed: a number between {lo} and {hi} (exclusive)")
        wanted = type(self.default)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if wanted in (bool, int, float, str) and type(value) is not wanted:
            raise BadInput(f"{owner}: {self.name}={value!r} is {type(value).__name__}; expected {wanted.__name__}")
        return value


def slug_of(name: str) -> str:
    """The name of the part that a class or function is, by default: MonoForward -> mono-forward, max_out -> max-out."""
    words = "".join("-" + c.lower() if c.isupper() else c for c in name)
    return words.replace("_", "-").strip("-")


def with_options(own: tuple[Option, ...], *more: Option) -> tuple[Option, ...]:
    """A part's own options, followed by those of its kind whose names it leaves free."""
    taken = {option.name for option in own}
    return own + tuple(option for option in more if option.name not in taken)


@dataclass(frozen=True, kw_only=True)
class Part(ABC):
    """What every kind of part declares. A kind's own final subclass adds its fields and says how to build one.

    subject: the function or class that is declared. name: by default its name as a slug. summary: by default the first line
    of the docstring of the file that declares it. Raises BadInput for what doesn't fit.

    dataclasses.replace makes another record of it, subject=, options and derived fields included.
    """

    subject: Any = field(kw_only=False)
    paper: Paper
    name: str = ""
    summary: str = ""
    formula: str = ""  # TeX, without dollar signs
    tags: Any = None
    options: tuple[Option, ...] = ()
    identities: tuple[Identity, ...] = ()
    claims: tuple[Claim, ...] = ()
    deviations: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    alias_of: str = ""
    equals_at_init: tuple[str, ...] = ()
    retired: str = ""
    usual: bool = False  # fills its slot of a run where a task names none
    module: str = ""  # the importable module that declares it
    origin: str = "netwright"  # or "distribution version" of the plug-in it came with

    def __post_init__(self) -> None:
        source: Any = inspect.getmodule(self.written) if not self.summary else None
        self._derive(
            name=self.name or slug_of(self.subject.__name__),
            module=self.module or self.written.__module__,
            summary=self.summary or (source.__doc__ or "").strip().split("\n")[0],
        )
        if not SLUG.fullmatch(self.name):
            raise BadInput(f"part name {self.name!r} is not a slug (lower case letters, digits, '-', '.')")

    def _derive(self, **fields: Any) -> None:
        """Set fields of the frozen record while it is made."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def written(self) -> Any:
        """What is defined in the file that declares the part: the subject, where that isn't another's."""
        return self.subject

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind's name, e.g. "activation"."""

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of what has to be run to be judged: claims with a protocol."""
        return tuple(claim.name for claim in self.claims if claim.protocol is not None)

    @property
    def why_not_stackable(self) -> str:
        """Why copies of a net with this part can't be trained as one stack, or ''."""
        return ""

    @property
    def replaces(self) -> tuple[str, ...]:
        """Slots of a net whose default is left out where an arm puts this part in: it does their work too."""
        return ()

    @property
    def needs(self) -> frozenset[str]:
        """What it asks of a task's problem, of what that `gives`."""
        return frozenset()

    def missing(self, gives: frozenset[str]) -> tuple[str, ...]:
        """What it asks of a task's problem and doesn't find in what that `gives`, in words."""
        return tuple(sorted(self.needs - gives))

    def fills(self, slot: str) -> tuple[str, ...]:
        """The places of a net that it fills where an arm puts it into a slot."""
        return (slot,)

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options with `given` laid over the defaults, each checked; raises on an unknown or misfit option."""
        from netwright.core.errors import unknown

        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                raise unknown("option", name, known, owner=self.id)
        return {name: option.check(given.get(name, option.default), self.id) for name, option in known.items()}

    @abstractmethod
    def build(self, **options: Any) -> Any:
        """The thing itself: an nn.Module, a Rule class bound to its options, a Task."""

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the slots of a net this part can fill."""

    def module_type(self) -> type[Any] | None:
        """The class that is importable under the part's wing, always the same one; None where the part has none."""
        return self.subject if isinstance(self.subject, type) else None

    @property
    def class_name(self) -> str:
        """The name of that class, or ''."""
        made = self.module_type()
        return "" if made is None else made.__name__
