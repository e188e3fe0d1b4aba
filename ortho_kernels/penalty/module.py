"""`OrthogonalityPenalty`: the penalty over a model's conv and linear weights, as a module."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..backends.protocol import Into
from ..distributed.agreement import check_shards
from ..distributed.fsdp import Shards, explained
from ..distributed.replicated.sharing import sharing_of
from ..distributed.sharded.weight import gathered, shard_weights
from ..gradients import check_scale
from ..options import PENALTIES, check_reduction
from ..weight_views import WeightViews, weight_views
from .calls import holding, refuse_tracing_apart, uncounted
from .computed_weights import compute_weight
from .cuts import Cutter
from .decoupled import DecoupledStep
from .evaluation import Weights, penalty_gradients, penalty_values
from .gamma import weighted_sum
from .gradient_scaling import scale_factor, skipped_step
from .gradient_targets import gradient_targets
from .module_tree import ModuleTree
from .named_parameters import as_encoder
from .paper_gamma import DEFAULT_GAMMA
from .report import LayerReport, PenaltyReport
from .selection import Selector
from .start_options import choose_start
from .weighting import Weighting, zero
from .words import abridged, described

_OWN_OPTIONS = {"so": (), "srip": ("seed", "generator", "warm_start")}  # those of the class beside its function's

_log = logging.getLogger("ortho_kernels")


class OrthogonalityPenalty(Weighting):
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
        gamma: the factor; 1e-6 (SO) or 1e-3 (SRIP) by default, see `paper_gamma`. A number, a tensor without dimensions on
            the weights' device (change it in place: nothing is compiled or captured anew), a `Schedule`, or a dict of these
            by patterns as in `include`, of which the first that matches a weight counts. An attribute that may be set.
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
        lora: `"factors"` covers the adapters of LoRA alone: both factors of each in training, a matrix each, known by the
            names lora_A and lora_B (PEFT's LoRA, DoRA and AdaLoRA; loralib). `LoraPenalty` is that of their products.
        reduction: a matrix counts gamma times 1 (`"sum"`), times 1 over the number of matrices (`"mean"`), or times 1 over
            the number of entries of its Gram (`"entries"`, of SO).
        every: the penalty is computed in each `every`-th call in training mode, the first among them, with `every` times
            the strength. Between them it is 0 and no start vector moves. In eval mode each call is computed, as if it
            were 1.
        share: True for all ranks, or the process group over which DDP averages gradients. In training mode each rank then
            computes a part of the matrices: all must call. In eval mode and for `report` each computes all.
        options: further keyword arguments of the function of that kind (`side`, `iterations`, `gradient`, ...). SRIP has
            three of the class: `seed`, an int, 0 by default: start vectors are a function of it, of the number of calls in
            training mode, which is kept in checkpoints, and of the weight's name, so every process has the same.
            `warm_start=True`: each step starts from the vectors of the step before. `generator`: draws the start vectors
            instead; that all processes draw the same ones is then the caller's duty.

    Attributes:
        names: the covered weights, by the names of the encoder's parameters.
        uncovered: the reason against every other parameter of two or more dimensions, by name.
        calls: counts the calls in training mode, which a checkpoint keeps; None without a schedule and `every`.

    Raises:
        ValueError: for an unknown kind or option, what matches nothing, a weight without a gamma, or nothing to penalize.
        TypeError: for a weight that holds no plain floating-point numbers (quantized ones).
    """

    # torch.jit.script compiles what a model's parts have, used or not.
    __jit_unused_properties__ = ("encoder", "gamma", "every", "reduction")

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Tensor],
        kind: str = "so",
        *,
        gamma: Any = None,
        include: Any = None,
        exclude: Any = None,
        extra: Any = None,
        batch_dims: Mapping[str, int] | None = None,
        split_qkv: Any = False,
        split_gate_up: Any = False,
        split_heads: Any = False,
        groups: str = "split",
        lora: str | None = None,
        reduction: str = "sum",
        every: int = 1,
        share: Any = False,
        **options: Any,
    ) -> None:
        encoder = as_encoder(encoder)
        if kind not in tuple(PENALTIES):
            raise ValueError(f"kind must be one of {', '.join(map(repr, PENALTIES))}; got {kind!r}")
        known = {*_OWN_OPTIONS[kind], *(field.name for field in fields(PENALTIES[kind]))}
        for option in options:
            if option not in known:
                raise TypeError(f"{kind!r} has no option {option!r}; it has {', '.join(sorted(known))}")
        super().__init__(DEFAULT_GAMMA[kind] if gamma is None else gamma, reduction, every)
        self.kind = kind
        self.start = choose_start(options) if kind == "srip" else None
        self._start = (self.start,)  # as `_calls` is
        self.options: Any = PENALTIES[kind](**options)
        check_reduction(reduction, self.options, to_one=True)
        # In a tuple, lest it be registered: a module reached by two paths is not put back by functional_call.
        self._referred = (encoder,)
        self._sharing = sharing_of(share)
        self._tree: ModuleTree | None = None
        self._shards: Shards
        try:
            cutter = Cutter(encoder, split_qkv, split_gate_up, split_heads)
            self._selector = Selector(encoder, include, exclude, extra, batch_dims, groups, cutter, lora)
            self._select(again=False)
        except ValueError as error:
            raise explained(error, encoder) from None

    @property
    def encoder(self) -> nn.Module:
        return self._referred[0]

    def weights(self) -> list[tuple[str, Tensor, int]]:
        """`(name, weight, groups)` of everything the penalty covers, as it stands now."""
        _, matrices, views = self._current_weights()
        return list(zip(self.names, map(gathered, matrices), views.groups, strict=True))

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
        """The differentiable scalar `gamma * sum of penalty(W)`, float32 (float64 where a weight is float64).

        In training mode it is 0 for the calls that `every` leaves out, and goes backward to no weight.
        """
        if self._leaves_out(with_graph=True):
            return zero(self._places).requires_grad_(torch.is_grad_enabled())
        _, matrices, views = self._current_weights()
        [start], factor = self._start, self._factor()
        sharing = self._sharing if self.training else None
        values = penalty_values(start, self.options, self.names, matrices, views, sharing)
        self._end_call()
        return weighted_sum(values, factor)

    def accumulate_gradients(self, scale: float = 1.0, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Adds `scale` times the gradient of `penalty()` to the weights' `.grad`, in place, and returns its value.

        To be called between the loss's backward and the optimizer's step, where it does as `(scale * penalty()).backward()`
        does, without a graph and with nothing allocated: `.grad` is added to while it is computed. Hooks on parameters don't
        see what is added. Weights that are frozen get none. Those that are computed (parametrizations) pass theirs on by a
        backward of their own, which hooks see.

        With a GradScaler, `.grad` holds scaled gradients until `scaler.unscale_(optimizer)`, which `scaler.step` calls. Call
        this after `unscale_`, or before it with `scaler=scaler`: its scale, which stays on its device, is then a factor too.

        Returns:
            The detached scalar `gamma * sum of penalty(W)`, without `scale`.

        Raises:
            RuntimeError: where a scaler is given whose gradients are unscaled already.
        """
        check_scale(scale)
        if self._leaves_out():
            return zero(self._places)
        with torch.enable_grad():  # for parametrizations
            parameters, matrices, views = self._current_weights()
        factor, sharing = self._factor(), self._sharing if self.training else None
        scaled = scale * factor * (1.0 if scaler is None else scale_factor(scaler, views.device))
        targets, computed, made = gradient_targets(parameters, matrices)
        try:
            into = Into(targets, self._strength.spread(scaled), accumulate=True)
            values = penalty_gradients(self.start, self.options, self.names, matrices, views, into, sharing)
        except Exception:
            for parameter in made:
                parameter.grad = None
            raise
        self._end_call()
        if computed:
            torch.autograd.backward(list(computed), list(computed.values()))
        return weighted_sum(values, factor)

    @torch.no_grad()
    def step_(self, optimizer: torch.optim.Optimizer, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Takes a step on the penalty alone, `W -= lr * gradient of penalty()`, and returns its value.

        It is decoupled as AdamW's weight decay is: `lr` is that of the parameter group that holds W, and neither `.grad` nor
        the optimizer's state is read or changed. To be called after `optimizer.step()`. Weights that are frozen stay. The
        parameters of weights that are computed (parametrizations) take the step for them, and of sharded weights each
        process its part.

        With a GradScaler, call `step_(optimizer, scaler=scaler)` between `scaler.step(optimizer)` and `scaler.update()`.
        Where the scaler skipped the optimizer's step, no weight changes. Nothing waits for the device. Its scale plays no
        role.

        Returns:
            The detached scalar `gamma * sum of penalty(W)`, of the weights before the step.

        Raises:
            TypeError: for an optimizer without parameter groups.
            ValueError: for a weight that requires a gradient and that no group holds.
            RuntimeError: for a scaler that has not stepped this optimizer since its last update.
        """
        skipped = skipped_step(scaler, optimizer)
        if self._leaves_out():
            return zero(self._places)
        with torch.enable_grad():
            parameters, matrices, views = self._current_weights()
        step = DecoupledStep(optimizer, self.names, self._places, parameters, matrices, views)
        factor, sharing = self._factor(), self._sharing if self.training else None
        into = Into(step.gradients, self._strength.spread(factor))
        values = penalty_gradients(self.start, self.options, self.names, matrices, views, into, sharing)
        self._end_call()
        step.take(skipped)
        return weighted_sum(values, factor)

    def hold(self) -> AbstractContextManager[None]:
        """Within it, all calls see one objective: the same start vectors, step of a schedule and turn of `every`.

        For closures that an optimizer calls several times (LBFGS, line searches), and for SAM's two gradients. On leaving,
        also by an exception, the step moves on once if there was a call in training mode. A warm start takes the vectors of
        the last call. Within another hold it does nothing.
        """
        return holding((*self._start, *self._calls))

    @torch.jit.unused
    def forward(self) -> Tensor:
        return self.penalty()

    def report(self) -> PenaltyReport:
        """Every layer's value and spectrum (takes an SVD of each); non-finite layers are named, not skipped, and so are the
        weights that are not covered. SRIP's values are those of the next call: looking changes nothing."""
        with uncounted(self):
            matrices, views, values = self._current_values()
            total = weighted_sum(values, self._factor()).item()
        whole = map(gathered, matrices)
        layers = zip(self.names, whole, views.views, values.split(views.groups), self._gammas(), strict=True)
        rows = [LayerReport.of(*layer) for layer in layers]
        return PenaltyReport(self.kind, self._strength.gamma, rows, total, self.uncovered)

    def values(self) -> dict[str, float]:
        """Every layer's value before gamma, as `report` has it, without an SVD. Looking changes nothing."""
        with uncounted(self):
            _, views, values = self._current_values()
        layers = [value.sum() for value in values.split(views.groups)]
        return dict(zip(self.names, torch.stack(layers).tolist(), strict=True))

    def extra_repr(self) -> str:
        set_options = ((field.name, getattr(self.options, field.name), field.default) for field in fields(self.options))
        options = "".join(f", {name}={value!r}" for name, value, default in set_options if value != default)
        share = "" if self._sharing is None else f", share={self._sharing}"
        covered = f"covers {len(self.names)} weights, {self._entries:,} entries: {abridged(self.names)}"
        uncovered = f"\nnot {len(self.uncovered)}: {described(self.uncovered)}" if self.uncovered else ""
        return f"kind={self.kind!r}, {super().extra_repr()}{options}{share}\n{covered}{uncovered}"

    def _current_values(self) -> tuple[list[Tensor], WeightViews, Tensor]:
        _, matrices, views = self._current_weights()
        return matrices, views, penalty_values(self.start, self.options, self.names, matrices, views)

    def _select(self, *, again: bool) -> None:
        covered, self.uncovered, factors = self._selector.select(again=again)
        sites, keys, forms, names = zip(*covered, strict=True)
        self.names = tuple(site.name for site in sites)
        self._keys, self._forms = keys, forms
        self._groups = tuple(form.groups(site.weight) for site, form in zip(sites, forms, strict=True))
        self._reformed = [index for index, form in enumerate(forms) if form.batch_dims or form.transposed]
        self._places = [(site.owner, site.attribute) for site in sites]
        self._assign(names, again=again)
        self._entries = sum(site.weight.numel() for site in sites)
        if not any(site.weight.requires_grad for site in sites):
            _log.warning("no weight that the penalty covers requires a gradient: it is measured, and changes nothing")
        self._tree, self._shards = ModuleTree(self.encoder, factors), Shards(self.encoder)
        _, matrices, views = self._weights()
        check_shards(self.names, matrices, views, self.options)
        self._fit(views)

    def _fit(self, views: WeightViews) -> None:
        [start], [calls] = self._start, self._calls
        if start is not None:
            start.fit(self._keys, views)
        if views is not self._strength.views:
            self._strength.fit(views, self.options.side)
        if calls is not None:
            calls.move_to(views.device)

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
        if self.training and (self.start is not None or self.calls is not None):
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
        if self._sharing is not None:
            self._sharing.refuse_sharded(self.names, parameters)
        matrices = list(parameters)
        for index in self._reformed:
            matrices[index] = self._forms[index].weight(matrices[index], self.names[index])
        try:
            matrices = shard_weights(matrices, self.names)
            views = weight_views(matrices, self._groups, self.names)
        except ValueError as error:
            raise explained(error, self.encoder) from None
        except TypeError as error:
            raise TypeError(f"{error}; `exclude` leaves it out") from None
        return Weights(parameters, matrices, views)
