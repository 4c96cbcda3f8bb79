"""Table 9 of the committed scores as pages show it: which claims hold over seeds, and where the rows came from."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from docs.make.references import Key, Reference, owners, pooled, table
from evaluation.report import verdicts
from evaluation.report.layout import ClaimsSpec, Layout
from evaluation.report.verdicts import Comparison
from evaluation.scores import Score, format_value
from workflow.common.contracts import REAL
from workflow.common.metrics import METRICS

FORMS = ("sentences", "claims", "comparisons", "sources")
SHORT = 7  # letters of a commit
WIDTH = 118
_CLAIM = verdicts.HEADS.index("Claim")


@dataclass(frozen=True)
class Conclusions:
    """What the rows of several references say of the claims called `name` in the layout; `only` some, if any.

    Each row comes from the first reference that has it. `form` is one of FORMS: a list of sentences, a table of claims,
    a table of all comparisons that two seeds judge, or a table of where the rows came from.
    """

    references: Sequence[Reference]
    layout: Layout
    name: str
    form: str
    only: tuple[str, ...] = ()

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the lines; `paper` has the paper's numbers."""
        spec = self.spec()
        lines = self.judged(paper)
        return {"sentences": _sentences, "claims": _claims, "comparisons": self._comparisons, "sources": self._sources}[
            self.form
        ](spec, lines)

    def judged(self, paper: Iterable[Score] = ()) -> list[Comparison]:
        """Returns the comparisons of the claims; `paper` has the paper's numbers."""
        return verdicts.judge(self.spec(), pooled(self.references).scores, paper, self._by_two_networks)

    def _by_two_networks(self, line: Comparison) -> bool:
        owner = owners(self.references)
        one, other = (owner.get((line.dataset, line.epsilon, run)) for run in (line.better, line.than))
        if not METRICS[line.metric].network or None in (one, other) or one is other:
            return False
        real = _of_real(one, line)
        # Where neither has it, nothing tells that it is one network.
        return not real or real != _of_real(other, line)

    def spec(self) -> ClaimsSpec:
        """Returns the claims to judge."""
        whole = self.layout.claims[self.name]
        kept = {name: claim for name, claim in whole.claims.items() if not self.only or name in self.only}
        return dataclasses.replace(whole, claims=kept)

    def _comparisons(self, spec: ClaimsSpec, lines: Sequence[Comparison]) -> str:
        numbers = {name: str(number) for number, name in enumerate(self.layout.claims[self.name].claims, 1)}
        judged = [line for line in lines if line.p_holm is not None]
        grid, owner = verdicts.build_grid(spec, self.layout, judged), owners(self.references)
        rows = []
        for line, cells in zip(judged, grid.rows, strict=True):
            kept = [cell for place, cell in enumerate(cells) if place != _CLAIM]
            apart = len({owner[line.dataset, line.epsilon, run].name for run in (line.better, line.than)}) > 1
            rows.append([numbers[line.claim], *kept[:-1], kept[-1] + (" *" if apart else "")])
        return table(["#", *(head for place, head in enumerate(grid.heads) if place != _CLAIM)], rows)

    def _sources(self, spec: ClaimsSpec, lines: Sequence[Comparison]) -> str:
        named = {(line.dataset, line.epsilon, run) for line in lines for run in (line.better, line.than)}
        taken = {key: one for key, one in owners(self.references).items() if key in named}
        return table(
            ["reference", "rows", "seeds", "commits"],
            [_source(one, [key for key, owner in taken.items() if owner is one]) for one in self.references],
        )


def _of_real(reference: Reference, line: Comparison) -> list[str]:
    """Returns what the network of a comparison's metric makes of real images: that tells one from another."""
    return [format_value(value) for value in reference.values((line.dataset, math.inf, REAL), line.metric)]


def _sentences(spec: ClaimsSpec, lines: Sequence[Comparison]) -> str:
    wrapped = (
        textwrap.wrap(one, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for one in verdicts.summary(spec, lines)
    )
    return "\n".join(line for one in wrapped for line in one)


def _claims(spec: ClaimsSpec, lines: Sequence[Comparison]) -> str:
    rows = []
    for number, (name, claim) in enumerate(spec.claims.items(), 1):
        said = verdicts.counted([line for line in lines if line.claim == name])
        rows.append([str(number), claim.says, claim.by, said])
    return table(["#", "claim", "of", "verdicts"], rows)


def _source(reference: Reference, keys: Sequence[Key]) -> list[str]:
    runs = ", ".join(f"`{run}`" for run in sorted({run for *_, run in keys}))
    seeds = {s.seed for s in reference.scores if (s.dataset, s.epsilon, s.method) in set(keys)}
    return [reference.name, runs, str(len(seeds)), _commits(reference.commits)]


def _commits(commits: Mapping[str, int]) -> str:
    return ", ".join(f"{name[:SHORT]} ({runs} runs)" for name, runs in sorted(commits.items(), key=lambda one: -one[1]))
