"""The help of all commands: what they do, every key with its type, default and meaning, and the options of groups."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sciml.app.verbs import EXAMPLES, SUMMARIES
from sciml.core.config import flat
from sciml.core.described import KeyFacts, Name, class_named, keys_of
from sciml.core.errors import ConfigError, nearest
from sciml.core.groups import options
from sciml.core.installation import CONF, start
from sciml.run.compose import compose
from sciml.run.early_checks import KINDS, group_class
from sciml.run.option_domains import OF_A_DOMAIN, domain_class, domains_of
from sciml.run.overrides import typed_value

GROUP_TITLES = {
    "domain": "which science",
    "data": "what is learned from",
    "task": "what is learned",
    "model": "what learns it",
    "trainer": "how long, how precisely, what is kept",
    "optim": "the optimizer and its schedule",
    "parallel": "how it is shared by many processes",
    "engine": "who steps: torch or DeepSpeed",
    "tracking": "further views of a run",
    "experiment": "whole settings, one file each",
    "cluster": "the machine",
}
_COMMENT = re.compile(r"(?P<key>[\w.]+):.*?\s#\s(?P<text>.*)")
KEY_COLUMN = 38


def overview() -> str:
    """Returns what ``sciml`` alone says: its verbs, a line each."""
    lines = [
        "usage: sciml VERB [key=value ...]",
        "       sciml VERB --help [GROUP]",
        "       sciml --version",
        "",
        "verbs:",
    ]
    return "\n".join([*lines, *(f"  {verb:<15}{summary}" for verb, summary in SUMMARIES.items())])


def help_text(verb: str, words: Sequence[str] = (), config_dir: str | None = None) -> str:
    """Returns the help of a verb, as its configuration is composed with what was typed beside ``--help``.

    Args:
        words: overrides, and the name of a group to be told of alone.

    Raises:
        ConfigError: there is no such group, or an override is wrong.
    """
    asked = [word for word in words if "=" not in word]
    config = compose(verb, [word for word in words if "=" in word], config_dir).config
    domain = _domain_of(config)
    groups = [group for group in GROUP_TITLES if group in _groups_of(verb)]
    if asked:
        return "\n".join(line for group in asked for line in _group_help(group, groups, config, domain, config_dir))
    lines = [
        SUMMARIES[verb],
        "",
        f"usage: {start(verb)} [key=value ...] [--config FILE] [--cfg] [--config-dir DIR] [--help [GROUP]]",
        "",
    ]
    lines += ["examples:", *(f"  {start(verb)} {example}".rstrip() for example in EXAMPLES[verb]), ""]
    if groups:
        lines.append("groups (group=option; --help GROUP tells of each option):")
        for group in groups:
            lines += _row(f"  {group}", ", ".join(options(group, config_dir)), 14)
        lines.append("")
    lines += ["keys, with their defaults:", *_own_keys(verb, config, domain), ""]
    if verb == "train":
        for group in groups:
            if facts := _facts_of(group, config, domain):
                lines += [
                    f"{group}: {GROUP_TITLES[group]}{_for_domain(group, config)}",
                    *_keys(group, config, facts),
                    "",
                ]
    elif "trainer" in groups:
        lines += [f"Keys of a training go along as they are: {start('train')} --help", ""]
    lines.append(
        "--config reads keys from a YAML file; --cfg prints what is composed and stops; --config-dir adds groups."
    )
    return "\n".join(lines)


def _for_domain(group: str, config: Mapping[str, Any]) -> str:
    where = f" (domain={_domain_name(config)})" if group in OF_A_DOMAIN else ""
    return where + (f", model.kind={config['model']['kind']}" if group == "model" else "")


def _group_help(
    group: str, groups: Sequence[str], config: Mapping[str, Any], domain: Name | None, config_dir: str | None
) -> Iterator[str]:
    """Yields the help of one group: its options, each with the first lines of its file, and its keys."""
    if group not in groups:
        raise ConfigError(f"there is no group {group!r}", key="--help", hint=nearest(group, groups))
    yield f"{group}: {GROUP_TITLES[group]}"
    by_domain: dict[str, list[str]] = {}
    for option in options(group, config_dir):
        by_domain.setdefault(", ".join(domains_of(group, option)), []).append(option)
    for names, some in by_domain.items():
        yield ""
        yield f"  for domain={names}:" if group in (*OF_A_DOMAIN, "experiment") and names else "  options:"
        for option in some:
            yield from _row(f"    {option}", _first_comment(CONF / group / f"{option}.yaml"), 24)
    if facts := _facts_of(group, config, domain):
        yield ""
        yield f"keys{_for_domain(group, config)}, with their defaults:"
        yield from _keys(group, config, facts)


def _domain_of(config: Mapping[str, Any]) -> Name | None:
    """Returns the class of the composed domain."""
    values = config.get("domain")
    target = str(values.get("_target_", "")) if values else ""
    module, _, name = target.rpartition(".")
    return Name(module, name) if module else None


def _domain_name(config: Mapping[str, Any]) -> str:
    domain = _domain_of(config)
    return "" if domain is None else domain.module.split(".")[-2]


def _groups_of(verb: str) -> set[str]:
    """Returns the groups in the defaults of a verb's configuration file; train's where it has those."""
    text = (CONF / f"{verb}.yaml").read_text(encoding="utf-8")
    names = set(re.findall(r"^  - (?:optional )?(\w+)(?::.*)?$", text, re.MULTILINE))
    if verb == "train":
        return names | set(OF_A_DOMAIN)
    return names | _groups_of("train") if "train" in names else names & {"domain", "cluster"}


def _facts_of(group: str, config: Mapping[str, Any], domain: Name | None) -> dict[str, KeyFacts]:
    """Returns the keys of a group, as the composed configuration has them."""
    if group in KINDS:
        return keys_of(Name(KINDS[group].__module__, KINDS[group].__name__))
    if domain is None or group not in OF_A_DOMAIN:
        return {}
    owner = group_class(group, config["domain"], config[group])
    return {} if owner is None else keys_of(owner)


def _keys(prefix: str, config: Mapping[str, Any], facts: Mapping[str, KeyFacts]) -> Iterator[str]:
    """Yields a row for each key; a group of keys within is shown by its own keys."""
    values = config.get(prefix.rpartition(".")[2]) if isinstance(config, Mapping) else None
    values = values if isinstance(values, Mapping) else {}
    for name, fact in facts.items():
        key = f"{prefix}.{name}"
        if fact.group is not None and (inner := keys_of(fact.group)):
            yield from _row(f"  {key}.", fact.meaning)
            yield from _keys(key, values, inner)
        else:
            shown = typed_value(values[name]) if name in values else fact.default
            yield from _row(f"  {key}={shown}", "; ".join(part for part in (fact.kind, fact.meaning) if part))


def _own_keys(verb: str, config: Mapping[str, Any], domain: Name | None) -> Iterator[str]:
    """Yields a row for each key outside of groups, and those that a domain has of its own."""
    module = f"sciml.app.{verb}"
    facts = keys_of(Name(module, f"{verb.title()}Config")) or keys_of(Name("sciml.app.run_on_model", "RunChoice"))
    if verb == "train":
        facts = keys_of(Name("sciml.run.spec", "RunOptions")) | keys_of(Name("sciml.run.early_checks", "Seed"))
    yield from _file_keys(CONF / f"{verb}.yaml", facts)
    group = "cluster" if verb == "launch" else "domain"
    for option in sorted(set(options(verb)) & set(options(group))):
        owner = class_named(domain_class(option), f"{verb}_config") if group == "domain" else None
        if owner is not None or group == "cluster":
            yield ""
            yield f"keys with {group}={option}:"
            yield from _file_keys(CONF / verb / f"{option}.yaml", keys_of(owner) if owner else facts)


def _file_keys(file: Path, facts: Mapping[str, KeyFacts]) -> Iterator[str]:
    """Yields a row for each key of a configuration file: its comment says what it means, its dataclass its type."""
    from omegaconf import OmegaConf

    text = file.read_text(encoding="utf-8")
    comments = _comments(text)
    values: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    for name, value in values.items():
        if name in ("defaults", "domain", "hydra"):
            continue
        fact = facts.get(name, KeyFacts(""))
        meaning = comments.get(name) or fact.meaning
        if isinstance(value, Mapping) and value:
            yield from _row(f"  {name}.", meaning)
            inner = keys_of(fact.group) if fact.group else {}
            for key, part in flat(value, name).items():
                known = inner.get(key.partition(".")[2], KeyFacts(""))
                about = [known.kind, comments.get(key.rpartition(".")[2]) or known.meaning]
                yield from _row(f"  {key}={typed_value(part)}", "; ".join(filter(None, about)))
        else:
            yield from _row(f"  {name}={typed_value(value)}", "; ".join(part for part in (fact.kind, meaning) if part))


def _comments(text: str) -> dict[str, str]:
    """Returns what stands behind each key of a configuration file, in lines of their own below it too."""
    comments: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if match := _COMMENT.match(line):
            key = match["key"]
            comments[key] = match["text"]
        elif key and line.startswith("  ") and line.lstrip().startswith("# "):
            comments[key] += line.lstrip()[1:]
        else:
            key = ""
    return comments


def _first_comment(file: Path) -> str:
    """Returns the sentence that an option's file begins with."""
    if not file.is_file():
        return ""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line != "# @package _global_"]
    comment: list[str] = []
    for line in lines:
        if not line.startswith("# "):
            break
        comment.append(line[2:])
    text = " ".join(comment)
    return re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(":;") if text else ""


def _row(left: str, right: str, column: int = KEY_COLUMN) -> Iterator[str]:
    """Yields the lines of one entry: what is typed, and what it means beside it, folded to the screen."""
    width = max(70, min(shutil.get_terminal_size((100, 24)).columns, 120))
    folded = textwrap.wrap(right, width - column, break_on_hyphens=False) or [""]
    if len(left) >= column - 1:
        yield left
    else:
        yield f"{left:<{column}}{folded.pop(0)}".rstrip()
    yield from (" " * column + line for line in folded if line)
