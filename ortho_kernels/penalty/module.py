"""`OrthogonalityPenalty`: the penalty over a model's conv and linear weights, as a module."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..backends.protocol import Into
from ..distributed import Shards, explained, full_tensors
from ..functional import soft_orthogonality_values
from ..gradients import check_scale, soft_orthogonality_gradients
from ..options import PENALTIES
from ..weight_checks import check_storage
from ..weight_views import WeightViews, weight_views
from .computed_weights import compute_weight
from .cuts import Cutter
from .gradient_scaling import scale_factor
from .matrix_form import same_view
from .module_tree import ModuleTree
from .named_parameters import as_encoder
from .paper_gamma import DEFAULT_GAMMA
from .report import LayerReport, PenaltyReport
from .selection import Selector
from .start import GeneratorStart, SeededStart, Start, refuse_tracing_apart
from .warm_start import WarmStart
from .words import abridged, described

_OWN_OPTIONS = {"so": (), "srip": ("seed", "generator", "warm_start")}  # those of the class beside its function's

_log = logging.getLogger("ortho_kernels")


class Weights(NamedTuple):
    """All covered weights at one moment: the tensors that the model holds, and the matrices that the functions take."""

    parameters: list[Tensor]
    matrices: list[Tensor]
    views: WeightViews


class OrthogonalityPenalty(nn.Module):
    """`gamma * sum of penalty(W)` over the conv and linear weights of an encoder (arXiv 2411.00392).

    Add `penalty()` to the loss once an optimizer step. The penalty refers to the encoder without owning it: it has no
    parameters of its own, nothing in a checkpoint appears twice, and weights are looked up when it is computed, so that it
    follows `.to()`, parametrizations and `torch.func.functional_call` of the model. A weight that two layers share counts
    once. Where modules or parameters came or went since the last call (a new head, PEFT's adapters), the weights are
    selected anew, and a log line names the difference; under `torch.compile` they are those of the time of tracing. After
    weights were tied or untied, which changes no module, call `refresh()`.

    Args:
        encoder: the module whose weights are penalized: every `nn.Conv*d`, `nn.ConvTranspose*d`, `nn.Linear`, `Conv1D` of
            transformers, the projections of `nn.MultiheadAttention`, and transformers' experts, each a matrix; no norm, bias
            or embedding, nor an output layer that is tied to an embedding. `uncovered` says what else there is. Or named
            parameters: a dict, pairs (`model.named_parameters()`), a ParameterDict, or a list of parameters, named `"0"`,
            `"1"`, ... All of two or more dimensions are covered then. They are known by themselves, without a layer: one of
            3 or more dimensions is a convolution of one group, unless `batch_dims` says otherwise. What
            `torch.func.functional_call` puts in their place in a model is not seen.
        kind: `"so"` or `"srip"`, see `soft_orthogonality` and `srip`.
        gamma: the factor; 1e-6 (SO) or 1e-3 (SRIP) by default, see `paper_gamma`. An attribute: change it to schedule it.
        include: narrows what is covered to this: patterns of names (as in a shell) of weights or of modules that hold them
            (`"layer4"`, `"blocks.*.attn"`), parameters, modules, module types, or callables of a name and a weight; one or
            several. Patterns ignore the components that wrappers add (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`, and
            PEFT's `base_layer.`). A module counts by its place: what takes its place later is meant too.
        exclude: what to leave out, given likewise.
        extra: what to add to the default, given likewise: weights of an LSTM (one matrix each, all gates together), bare
            parameters, entries of a ParameterDict, embeddings.
        batch_dims: adds parameters that hold a batch of matrices: by patterns of names, how many leading dimensions count
            matrices (`{"*.experts": 1}`). The first pattern that matches counts; 0 leaves a weight as it would be.
        split_qkv: a transformer's fused query, key and value projection counts as three matrices instead of one. `True`
            for the models whose cut is known; patterns of names say of others that q, k and v follow each other.
        split_gate_up: a fused gate and up projection, of each expert too, counts as two matrices, given likewise.
        split_heads: each head's rows in the projections to q, k and v count as a matrix, whether these are fused or not.
            `True` for the models whose heads are known; `{pattern: number of heads}` for others. In a fused projection
            that number is of each of q, k and v. Output projections are not cut: their heads are columns.
        groups: a grouped convolution counts as one matrix a group (`"split"`, the default: what it multiplies with) or as
            one matrix of all its filters (`"whole"`: what code that flattens every weight computes).
        options: further keyword arguments of the function of that kind (`side`, `iterations`, `gradient`, ...). SRIP has
            three of the class: `seed`, an int, 0 by default: start vectors are a function of it, of the number of calls in
            training mode, which is kept in checkpoints, and of the weight's name, so every process has the same.
            `warm_start=True`: each step starts from the vectors of the step before. `generator`: draws the start vectors
            instead; that all processes draw the same ones is then the caller's duty.

    Attributes:
        names: the covered weights, by the names of the encoder's parameters.
        uncovered: the reason against every other parameter of two or more dimensions, by name.

    Raises:
        ValueError: for an unknown kind or option, what matches nothing, an encoder with nothing to penalize.
        TypeError: for a weight that holds no plain floating-point numbers (quantized ones).
    """

    __jit_unused_properties__ = ("encoder",)  # torch.jit.script compiles what a model's parts have, used or not

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Tensor],
        kind: str = "so",
        *,
        gamma: float | None = None,
        include: Any = None,
        exclude: Any = None,
        extra: Any = None,
        batch_dims: Mapping[str, int] | None = None,
        split_qkv: Any = False,
        split_gate_up: Any = False,
        split_heads: Any = False,
        groups: str = "split",
        **options: Any,
    ) -> None:
        super().__init__()
        encoder = as_encoder(encoder)
        if kind not in tuple(PENALTIES):
            raise ValueError(f"kind must be one of {', '.join(map(repr, PENALTIES))}; got {kind!r}")
        known = {*_OWN_OPTIONS[kind], *(field.name for field in fields(PENALTIES[kind]))}
        for option in options:
            if option not in known:
                raise TypeError(f"{kind!r} has no option {option!r}; it has {', '.join(sorted(known))}")
        self.kind = kind
        self.gamma = DEFAULT_GAMMA[kind] if gamma is None else gamma
        is_number = isinstance(self.gamma, (int, float, Real)) and not isinstance(self.gamma, bool)  # numpy's too
        if not is_number or not math.isfinite(self.gamma):
            raise ValueError(f"gamma must be a finite number; got {self.gamma!r}")
        self.start = _choose_start(options) if kind == "srip" else None
        self._start = (self.start,)  # torch looks for a module's parts in four dictionaries: 1 us each time
        self.options: Any = PENALTIES[kind](**options)
        # In a tuple, lest it be registered: a module reached by two paths is not put back by functional_call.
        self._referred = (encoder,)
        self._tree: ModuleTree | None = None
        self._shards: Shards
        try:
            cutter = Cutter(encoder, split_qkv, split_gate_up, split_heads)
            self._selector = Selector(encoder, include, exclude, extra, batch_dims, groups, cutter)
            self._select(again=False)
        except ValueError as error:
            raise explained(error, encoder) from None

    @property
    def encoder(self) -> nn.Module:
        return self._referred[0]

    def weights(self) -> list[tuple[str, Tensor, int]]:
        """`(name, weight, groups)` of everything the penalty covers, as it stands now."""
        _, matrices, views = self._current_weights()
        return list(zip(self.names, matrices, views.groups, strict=True))

    def refresh(self) -> None:
        """Selects the weights anew, as is done by itself when modules or parameters came or went.

        Raises:
            ValueError: where what the user named by `include` or `extra` is gone, or nothing is left.
        """
        before = set(self.names)
        try:
            self._select(again=True)
        except ValueError as error:
            raise ValueError(f"the model has changed: {explained(error, self.encoder)}") from None
        came, gone = [name for name in self.names if name not in before], sorted(before - set(self.names))
        if came or gone:
            _log.warning(
                "the model has changed: the penalty now covers %s%s",
                f"{abridged(came)} too" if came else "fewer weights",
                f", no longer {abridged(gone)}" if gone else "",
            )

    def penalty(self) -> Tensor:
        """The differentiable scalar `gamma * sum of penalty(W)`, float32 (float64 where a weight is float64)."""
        _, matrices, views = self._current_weights()
        return self.gamma * self._values(matrices, views).sum()

    def accumulate_gradients(self, scale: float = 1.0, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Adds `scale` times the gradient of `penalty()` to the weights' `.grad`, in place, and returns its value.

        To be called between the loss's backward and the optimizer's step, where it does as `(scale * penalty()).backward()`
        does, without a graph and with nothing allocated: `.grad` is added to while it is computed. Hooks on parameters don't
        see what is added. Weights that are frozen get none. Those that are computed (parametrizations) or sharded pass
        theirs on by a backward of their own, which hooks see.

        With a GradScaler, `.grad` holds scaled gradients until `scaler.unscale_(optimizer)`, which `scaler.step` calls. Call
        this after `unscale_`, or before it with `scaler=scaler`: its scale, which stays on its device, is then a factor too.

        Returns:
            The detached scalar `gamma * sum of penalty(W)`, without `scale`.

        Raises:
            RuntimeError: where a scaler is given whose gradients are unscaled already.
        """
        check_scale(scale)
        with torch.enable_grad():  # for parametrizations
            weights = self._current_weights()
        _, matrices, views = weights
        factor = scale * self.gamma * scale_factor(scaler, views.device)
        targets, computed, made = self._targets(weights)
        try:
            values = self._add_gradients(matrices, views, targets, factor)
        except Exception:
            for parameter in made:
                parameter.grad = None
            raise
        if computed:
            torch.autograd.backward(list(computed), list(computed.values()))
        return self.gamma * values.sum()

    @torch.jit.unused
    def forward(self) -> Tensor:
        return self.penalty()

    def report(self) -> PenaltyReport:
        """Every layer's value and spectrum (takes an SVD of each); non-finite layers are named, not skipped, and so are the
        weights that are not covered. SRIP's values are those of the next call: looking changes nothing."""
        moving = self.training
        self.eval()
        try:
            with torch.no_grad():
                _, matrices, views = self._current_weights()
                values = self._values(matrices, views).split(views.groups)
        finally:
            self.train(moving)
        layers = zip(self.names, matrices, views.views, values, strict=True)
        return PenaltyReport(self.kind, self.gamma, [LayerReport.of(*layer) for layer in layers], self.uncovered)

    def extra_repr(self) -> str:
        set_options = ((field.name, getattr(self.options, field.name), field.default) for field in fields(self.options))
        options = "".join(f", {name}={value!r}" for name, value, default in set_options if value != default)
        covered = f"covers {len(self.names)} weights, {self._entries:,} entries: {abridged(self.names)}"
        uncovered = f"\nnot {len(self.uncovered)}: {described(self.uncovered)}" if self.uncovered else ""
        return f"kind={self.kind!r}, gamma={self.gamma:g}{options}\n{covered}{uncovered}"

    def _select(self, *, again: bool) -> None:
        covered, self.uncovered = self._selector.select(again=again)
        sites, keys, forms = zip(*covered, strict=True)
        self.names = tuple(site.name for site in sites)
        self._keys, self._forms = keys, forms
        self._groups = [form.groups(site.weight) for site, form in zip(sites, forms, strict=True)]
        self._reformed = [index for index, form in enumerate(forms) if form.batch_dims or form.transposed]
        self._places = [(site.owner, site.attribute) for site in sites]
        self._entries = sum(site.weight.numel() for site in sites)
        if not any(site.weight.requires_grad for site in sites):
            _log.warning(
                "no weight that the penalty covers requires a gradient: it can be measured, but changes nothing"
            )
        self._tree, self._shards = ModuleTree(self.encoder), Shards(self.encoder)
        self._fit(self._weights().views)

    def _fit(self, views: WeightViews) -> None:
        [start] = self._start
        if start is not None:
            start.fit(self._keys, views)

    def _current_weights(self) -> Weights:
        """The weights, selected anew where the model has changed."""
        if torch.compiler.is_compiling():
            self._settle()
            return self._weights()
        self._refresh_if_changed()
        weights = self._weights()
        self._fit(weights.views)
        return weights

    def _refresh_if_changed(self) -> None:
        if self._tree is None or self._tree.has_changed():
            self.refresh()

    def _settle(self) -> bool:
        """Selects anew, once and outside the graph, when a call is traced; an export has taken the old vectors by then."""
        if torch.compiler.is_exporting() and self._tree is not None and self._tree.has_changed():
            raise RuntimeError("the model has changed: call penalty.refresh() before it is exported")
        if self.start is not None and self.training:
            refuse_tracing_apart()
        with unset_fake_temporarily():
            self._refresh_if_changed()
            self._fit(self._weights().views)
        return True

    # What torch.compiler.assume_constant_result does, without the import of Dynamo, which takes a second.
    _settle._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """A copy may have other modules than those that the tree has seen (an fx GraphModule makes new ones)."""
        return self.__dict__ | {"_tree": None, "_shards": None}

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """What is loaded fits the model as it is now."""
        self._refresh_if_changed()
        super()._load_from_state_dict(*arguments)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self._refresh_if_changed()
        super()._save_to_state_dict(*arguments)

    def _weights(self) -> Weights:
        parameters: list[Tensor] = []
        replaced = {} if torch.compiler.is_compiling() else self._shards.replaced()
        for owner, attribute in self._places:
            parameter = owner._parameters.get(attribute)
            if parameter is None:
                parameter = compute_weight(owner, attribute, replaced)
                if parameter is None:  # it was taken away, which no module shows
                    self.refresh()
                    return self._weights()
            parameters.append(parameter)
        if replaced:
            parameters = [replaced.get(id(parameter), parameter) for parameter in parameters]
        matrices = full_tensors(parameters)
        if self._reformed:
            matrices = list(matrices)
            for index in self._reformed:
                matrices[index] = self._forms[index].weight(matrices[index], self.names[index])
        try:
            views = weight_views(matrices, self._groups, self.names)
        except ValueError as error:
            raise explained(error, self.encoder) from None
        except TypeError as error:
            raise TypeError(f"{error}; `exclude` leaves it out") from None
        return Weights(parameters, matrices, views)

    def _values(self, matrices: list[Tensor], views: WeightViews) -> Tensor:
        """The penalty of every matrix."""
        [start] = self._start
        try:
            if start is None:
                return soft_orthogonality_values(matrices, views, self.options)
            return start.values(matrices, views, self.options)
        except RuntimeError:
            check_storage(matrices, self.names)  # the operators know weights by their place alone
            raise

    def _add_gradients(
        self, matrices: list[Tensor], views: WeightViews, targets: list[Tensor | None], factor: float | Tensor
    ) -> Tensor:
        """As `_values`; `factor` times the gradients are added to the targets."""
        [start] = self._start
        into = Into(targets, factor, accumulate=True)
        try:
            if start is None:
                return soft_orthogonality_gradients(matrices, views, self.options, into)
            return start.values_and_gradients(matrices, views, self.options, into)
        except RuntimeError:
            check_storage(matrices, self.names)
            given = {
                f"{name}.grad": target for name, target in zip(self.names, targets, strict=True) if target is not None
            }
            check_storage(given.values(), list(given))
            raise

    def _targets(self, weights: Weights) -> tuple[list[Tensor | None], dict[Tensor, Tensor], list[Tensor]]:
        """Where each gradient goes: into `.grad`, or for a weight that is computed or sharded into a tensor of its own,
        which then goes backward from the weight; None where none is wanted. And the parameters that had no `.grad`."""
        targets: list[Tensor | None] = []
        computed, made = {}, []
        for parameter, matrix in zip(weights.parameters, weights.matrices, strict=True):
            target = None
            if not parameter.requires_grad:
                targets.append(None)
                continue
            if parameter.is_leaf and (matrix is parameter or matrix._base is parameter):
                if parameter.grad is None:
                    dtype = getattr(parameter, "grad_dtype", None)  # that of the weight unless torch was told another
                    parameter.grad = torch.zeros_like(parameter, requires_grad=False, dtype=dtype)
                    made.append(parameter)
                target = same_view(parameter.grad, parameter, matrix)
            if target is None:
                target = computed[matrix] = torch.zeros_like(matrix, requires_grad=False)
            targets.append(target)
        return targets, computed, made


def _choose_start(options: dict[str, Any]) -> Start:
    """What SRIP's options ask for; those that are the class's own are taken out."""
    side, generator = options.get("side", "small"), options.pop("generator", None)
    seed, warm_start = options.pop("seed", None), options.pop("warm_start", False)
    if type(warm_start) is not bool:
        raise TypeError(f"warm_start must be True or False; got {warm_start!r}")
    if seed is not None and (not isinstance(seed, Integral) or isinstance(seed, bool)):
        raise TypeError(f"seed must be an int; got {seed!r}")
    if generator is None:
        return (WarmStart if warm_start else SeededStart)(side, int(seed or 0))
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {generator!r:.60}")
    for name, given in (("warm_start", warm_start), ("seed", seed is not None)):
        if given:
            raise ValueError(f"{name} makes the start vectors, so a generator has nothing to draw: give one of the two")
    return GeneratorStart(side, generator)
