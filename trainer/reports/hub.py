"""A folder that is a repository of models as the Hugging Face Hub has them: model file, card, picture.

The card's front matter is written by huggingface_hub's own classes.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bgan.v1 import model_pb2

from ..common.files import write_atomically
from ..evaluation.evaluate import Evaluation
from ..evaluation.metrics.table import METRICS

_CARD = "README.md"
_TASK = "unconditional-image-generation"
_TAGS = ("gan", "binarygan", "binary-images", "onnx", "bgan", "arxiv:1810.04714")
# SPDX identifiers in small letters that the Hub knows; those of the GNU licences stand there without their ending.
# Source: https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0
    cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 c-uda ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0
    postgresql unlicense wtfpl zlib
    """.split()  # noqa: SIM905 - a table of words
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """What a repository is made of."""

    picture: ClassVar[str] = "samples.png"
    """The picture's name there."""

    model: Path
    manifest: model_pb2.Model
    text: str
    """The card, whose picture is `picture`."""
    evaluation: Evaluation
    dataset: str
    licence: str | None

    def write(self, folder: Path) -> Path:
        """Write model file and card into a folder, which has its picture; returns the card. Raises OSError."""
        from huggingface_hub import ModelCard

        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.manifest.name}.onnx"
        if not (target.exists() and target.samefile(self.model)):
            shutil.copyfile(self.model, target)
        card = folder / _CARD
        content = f"---\n{self._data().to_yaml()}\n---\n\n{self.text}"
        write_atomically(card, str(ModelCard(content)).encode())
        return card

    def _data(self) -> Any:
        from huggingface_hub import ModelCardData

        return ModelCardData(
            model_name=self.manifest.name,
            library_name="bgan",
            pipeline_tag=_TASK,
            tags=[*_TAGS, *(["class-conditional"] if self.manifest.classes else [])],
            eval_results=self._results(),
            widget=[{"text": f"samples of {self.manifest.name}", "output": {"url": self.picture}}],
            **license_fields(self.licence),
        )

    def _results(self) -> list[Any]:
        from huggingface_hub import EvalResult

        return [
            EvalResult(
                task_type=_TASK,
                dataset_type=self.dataset,
                dataset_name=self.dataset,
                dataset_split="test",
                metric_type=key,
                metric_name=METRICS[key].title,
                metric_value=value,
                metric_args={"samples": self.evaluation.count}
                | ({"standard_error": self.evaluation.errors[key]} if key in self.evaluation.errors else {}),
            )
            for key, value in self.evaluation.metrics.items()
        ]


def license_fields(licence: str | None) -> dict[str, Any]:
    """A licence as the Hub has it: its SPDX identifier, which may stand before a comma, or `other` with a name."""
    if licence is None:
        return {}
    name = re.sub(r"-(only|or-later)$", "", licence.partition(",")[0].strip().lower())
    if name in _LICENSES:
        return {"license": name}
    slug = re.sub(r"[^a-z0-9.]+", "-", name).strip("-")
    return {"license": "other", "license_name": slug or "other", "license_link": _CARD}
