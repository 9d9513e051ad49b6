"""The shop: a Flask application whose functions measure themselves.

Everything the page at ``/metrics`` shows, and everything in Graphite under ``shop``, comes from the few lines that
mention ``metrics``.
"""

import random
import time
import zlib
from typing import Any

from flask import Flask, Response, g, jsonify, render_template, request

import metricslib as metrics

from .day import PRODUCTS, trouble

now = metrics.default_registry.clock.time
shop = metrics.scope("shop")
requests_handled = shop.counter("requests")
latency = shop.timer("request")
stock = shop.gauge("stock", tags={"warehouse": "north"})
basket = shop.histogram("basket.items")
visitors = shop.unique("visitors")
database = shop.timer("db.query")


class SoldOut(Exception):
    """There is too little left of a product."""


class Unavailable(Exception):
    """The database did not answer in time."""


class Warehouse:
    """Counts what is left, and orders more when little is."""

    def __init__(self) -> None:
        self._left = dict.fromkeys(PRODUCTS, 40)
        shop.gauge("stock.least", read=lambda: min(self._left.values()))

    @metrics.timed("shop.warehouse.take")
    def take(self, product: str, items: int) -> None:
        """Take items off the shelf; raises SoldOut or Unavailable."""
        with database.tagged(statement="update_stock").time():
            time.sleep(random.uniform(0.0005, 0.003) * (1 + 40 * trouble(now())))
        if random.random() < 0.6 * trouble(now()):
            raise Unavailable(product)
        if self._left[product] < items:
            self._left[product] += 40
            raise SoldOut(product)
        self._left[product] -= items
        stock.set(sum(self._left.values()))


warehouse = Warehouse()


@metrics.timed("shop.search")
def search(text: str) -> list[str]:
    """Find products, slower for short texts."""
    with database.tagged(statement="select_products").time():
        time.sleep(random.uniform(0.5, 1.5) * 0.004 / (1 + len(text)) * (1 + 25 * trouble(now())))
    return [name for name in PRODUCTS if text in name]


@metrics.count_exceptions("shop.checkout.errors")
@metrics.in_progress("shop.checkout.running")
@metrics.timed("shop.checkout")
def checkout(product: str, items: int) -> dict[str, Any]:
    """Sell items; raises SoldOut or Unavailable."""
    warehouse.take(product, items)
    basket.observe(items)
    shop.counter("revenue").inc(PRODUCTS[product] * items)
    return {"product": product, "items": items, "order": zlib.crc32(f"{product}{time.time()}".encode())}


def create_app() -> Flask:
    """Return the application, with its metrics page under ``/metrics``.

    The page is open to all because the example listens on loopback only.
    """
    app = Flask(__name__)
    app.register_blueprint(metrics.view.blueprint(open=True, title="shop"), url_prefix="/metrics")

    @app.before_request
    def begin() -> None:
        g.span = latency.time().start()

    @app.after_request
    def end(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        requests_handled.tagged(route=route, status=response.status_code).inc()
        visitors.add(request.headers.get("X-Visitor", "unknown"))
        g.span.tag(route=route)
        g.span.stop()
        return response

    @app.get("/")
    def index() -> str:
        return render_template("home.html", products=PRODUCTS)

    @app.get("/search")
    def find() -> Response:
        return jsonify(found=search(request.args.get("q", "")))

    @app.post("/checkout/<product>")
    def buy(product: str) -> tuple[Response, int]:
        if product not in PRODUCTS:
            return jsonify(error="no such product"), 404
        try:
            return jsonify(checkout(product, request.args.get("items", 1, type=int))), 201
        except SoldOut:
            return jsonify(error="sold out; more is on its way"), 409
        except Unavailable:
            return jsonify(error="try again in a minute"), 503

    return app
