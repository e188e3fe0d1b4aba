"""Which weights fuse the gate and the up projection of a gated MLP or of experts, and whether they can be cut apart.

Where gate and up stand one after the other along the output, the weight is two matrices. As with q, k and v, a weight does
not show it: classes are recognized by name.
"""

from __future__ import annotations

import re

from torch import nn

from .experts import known_batch
from .fused_projections import Cut, Fusion, listed_cut
from .known_classes import class_names

_INTERLEAVED = "interleaves gate and up row by row"

# (the library, the attribute, the classes as FILE.CLASS), each cut in halves by its own `forward`
_TABLE: tuple[tuple[str, str, str], ...] = (
    ("timm", "fc1", "mlp.GluMlp"),
    (
        "transformers",
        "gate_up_proj",
        """dia.DiaMLP dots3_note.Dots3NoteAudioMLP esmfold2.EsmFold2SwiGLU glm.GlmMLP glm4.Glm4MLP glm4v.Glm4vTextMLP
        glm_image.GlmImageTextMLP glm_ocr.GlmOcrTextMLP minimax_m3_vl.MiniMaxM3VLDenseMLP phi3.Phi3MLP
        phi4_multimodal.Phi4MultimodalAudioMLP phi4_multimodal.Phi4MultimodalMLP zamba2.Zamba2MLP""",
    ),
    (
        "transformers",
        "input_linear",
        """granitemoe.GraniteMoeMoE granitemoe_swa.GraniteMoeSWAMLP granitemoehybrid.GraniteMoeHybridMLP
        granitemoehybrid.GraniteMoeHybridMoE granitemoeshared.GraniteMoeSharedMLP granitemoeshared.GraniteMoeSharedMoE
        jetmoe.JetMoeMoE""",
    ),
    ("transformers", "Wi", "modernbert.ModernBertMLP modernbert_decoder.ModernBertDecoderMLP"),
    ("transformers", "fc1", "moonshine.MoonshineDecoderMLP moonshine_streaming.MoonshineStreamingDecoderMLP"),
)
KNOWN: dict[str, Cut] = {
    f"{library}.{name}.{attribute}": 2 for library, attribute, names in _TABLE for name in names.split()
}


def _known_cut(owner: nn.Module, attribute: str) -> int | str | None:
    if attribute == "gate_up_proj" and known_batch(owner, attribute) is not None:
        return _INTERLEAVED if _interleaves(owner) else 2
    return listed_cut(KNOWN, owner, attribute)


def _interleaves(experts: nn.Module) -> bool:
    """Whether experts take every second channel for the gate: transformers notes it since version 5."""
    if "transformers.gpt_oss.GptOssExperts" in class_names(experts):
        return True
    return getattr(experts, "is_concatenated", True) is False


GATE_UP = Fusion("gate and up", 2, "split_gate_up", _known_cut, re.compile(r"^gate_up_proj$|^gate_up$"))
