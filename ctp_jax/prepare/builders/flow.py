"""A copy of a prepared data set with optical flow. See `ctp_jax.prepare.flow`."""

import dataclasses
import types

from ctp_jax import flow as flow_lib
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare import flow
from ctp_jax.prepare.builders import base, derived


class Flow(derived.Derived):
    """The videos of a prepared data set, --from, with their optical flow, as one more
    image per frame (config.data.stream=flow). Frames, labels, splits and annotations stay
    as they are."""

    DESCRIPTION = "Videos of another data set with their optical flow."
    NAME = "{from}_flow"
    UNUSED = ("short_side",)
    encode = staticmethod(flow.encode_flow)
    write_statistics = staticmethod(flow.write_statistics)

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        super().define_flags(values)
        about = "tvl1: CoCLR's; dis: a hundred times faster, less exact."
        values.choice("method", "tvl1", flow_lib.METHODS, about)
        about = "Pixels to the next frame; larger motions are clipped."
        values.number("bound", 20.0, about, 1, 1000)

    @classmethod
    def read_options(cls, arguments: types.SimpleNamespace) -> flow.Options:
        return flow.Options(
            method=arguments.method,
            bound=arguments.bound,
            quality=arguments.quality,
            opencv=flow_lib.require(arguments.method).__version__,
        )

    @classmethod
    def add(cls, source: base.Source, options: flow.Options, name: str) -> base.Source:
        if source.flow:
            raise UserError(
                f"--from={name}: has flow already: name the data set it was made from"
            )
        return dataclasses.replace(source, flow=True)


Builder = Flow
