"""What a user gets wrong, and a type checker must find: names that are not there, options that a call does not have."""

import metricslib as metrics
from metricslib import Flusher, Registry

metrics.start("console:", interval=10, prefix="shop", percentiles=[90], own="", grace=0.5, spool="/tmp/spool")
metrics.serve(port=8128, host="127.0.0.1", registry=metrics.default_registry)
version: str = metrics.__version__
span: metrics.Span = metrics.timer("db.query").time()

metrics.start(perfix="shop")  # type: ignore[arg-type]
metrics.start(interval="10")  # type: ignore[arg-type]
metrics.serve(prot=8128)  # type: ignore[arg-type]
metrics.timer("t", buckets=[0.1, 1])  # type: ignore[arg-type]
metrics.counter("c", labels=["route"])  # type: ignore[arg-type]
metrics.gauge("g", 5)  # type: ignore[arg-type]
metrics.scope("s", tag={})  # type: ignore[arg-type]
metrics.counted(nam="c")  # type: ignore[call-overload]
Registry(max_serie=1)  # type: ignore[arg-type]
Flusher(Registry(), spol="/tmp/spool")  # type: ignore[arg-type]
metrics.view.blueprint(titel="shop")  # type: ignore[arg-type]

metrics.incr("c")  # type: ignore[attr-defined]
metrics.generate_latest()  # type: ignore[attr-defined]
metrics.default_registry.incr("c")  # type: ignore[attr-defined]
metrics.counter("c").labels("a")  # type: ignore[attr-defined]
metrics.gauge("g").track_inprogress()  # type: ignore[attr-defined]
metrics.Counter("c")  # type: ignore[call-arg, arg-type]

with metrics.timer("t"):  # type: ignore[attr-defined]
    pass


@metrics.timer("t")  # type: ignore[operator]
def work() -> None: ...
