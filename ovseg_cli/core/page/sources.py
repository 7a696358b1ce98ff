"""Where did the value of a setting come from? Found again by asking every layer below what it would have set.

A run keeps values, not who chose them. The layers are those of `choose_model`: the method's defaults, what follows
from other settings, the data set's recipe. A value that none of them gives was set by the user.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.methods.build import implied_settings, preset_settings
from ovseg_cli.core.methods.texts import default_names, default_templates
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.settings_tables import default_source, flat

if TYPE_CHECKING:
    from ovseg_cli.core.data.spec import Spec

TYPED = "--set or --config"
Layer = tuple[dict[str, Any], str | None]  # values by dotted key, and where they come from; None: the table of sources


def setting_sources(method: str, values: Mapping[str, Any], spec: "Spec | None") -> dict[str, str]:
    """Say where each setting of a method, or of its training, comes from.

    Args:
        method: Name of the method.
        values: All of its settings, those of its training among them.
        spec: Data set whose recipe was taken; None knows of none.

    Returns:
        Dotted key → source, for every value. A method that is not registered any more gives none.
    """
    if method not in METHODS:
        return {}
    method_class = METHODS[method].load()
    told = {**method_class.sources, **getattr(method_class, "training_sources", {})}
    layers = _layers(method_class, method, values, spec)
    found = {}
    for key, value in flat(values):
        found[key] = TYPED
        for layer, source in layers:  # the highest layer that has a word decides
            if key in layer:
                if _plain(layer[key]) == _plain(value):
                    found[key] = source or default_source(told, key.partition(".")[0])
                break
    return found


def protocol_sources(method: str, protocol: Mapping[str, Any], spec: "Spec | None") -> dict[str, str]:
    """Say where what else makes a protocol comes from: names, sentences, candidates, calibration, threshold."""
    own = protocol.get("method", {})
    options = {
        "candidates": ("all", "--candidates"),
        "seen_penalty": (0.0, "--seen-penalty"),
        "background_threshold": (None, "--background-threshold"),
        "limit": (None, "--limit"),
        "synonym_rule": (protocol.get("synonym_rule"), ""),
        "softmax_scale": (protocol.get("softmax_scale"), ""),
    }
    found = {}
    for key, (default, option) in options.items():
        value = protocol.get(key)
        from_setting = key in own and own[key] == value and value != default
        found[key] = f"setting {key} of the method" if from_setting else "default" if value == default else option
    return {
        **found,
        "synonym_rule": "class names of the data set",
        "softmax_scale": "the method",
        "clip": f"recipe of {spec.name}" if spec and spec.preset.clip == protocol.get("clip") else "--clip",
        "templates": _templates_source(method, protocol, spec),
        "names": _names_source(method, protocol, spec),
    }


def _layers(method_class: Any, method: str, values: Mapping[str, Any], spec: "Spec | None") -> list[Layer]:
    """The layers, highest first."""
    shared, own = preset_settings(spec, method, None, values)
    models = [method_class.Config, *([training] if (training := getattr(method_class, "Training", None)) else [])]
    defaults = {
        name: field.get_default(call_default_factory=True)
        for model in models
        for name, field in model.model_fields.items()
    }
    recipe = f"recipe of {spec.name}" if spec else None
    return [
        (_flat(own), recipe),
        (_flat(shared), recipe),
        (_flat(implied_settings(method_class, values)), "follows from other settings"),
        (_flat(defaults), None),
    ]


def _templates_source(method: str, protocol: Mapping[str, Any], spec: "Spec | None") -> str:
    used = list(protocol.get("templates") or ())
    if spec and spec.preset.templates and used == list(spec.preset.templates):
        return f"recipe of {spec.name}"
    if method in METHODS and used == list(default_templates(METHODS[method].load(), None, spec.name if spec else "")):
        return "the method"
    return "--templates, or those of its training"


def _names_source(method: str, protocol: Mapping[str, Any], spec: "Spec | None") -> str:
    used = protocol.get("names")
    if used is None:
        return "the data set"
    known = [variant.id for variant in spec.name_variants] if spec else []
    is_default = method in METHODS and default_names(METHODS[method].load(), known) == used
    return "paper of the method" if is_default else "--names"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flat({key: _dumped(value) for key, value in values.items()}))


def _dumped(value: Any) -> Any:
    """Settings inside a setting as plain values."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _plain(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)
