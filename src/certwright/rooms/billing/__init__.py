"""Ordering: products, prices, orders, payments, the books, unsubscriptions."""

from certwright.platform.services import Services
from certwright.rooms.billing import jobs, payments, refunds, tables
from certwright.rooms.billing.books import (
    Balance,
    create_coupon,
    disable_coupon,
    get_balances,
    get_coupon,
    get_policy,
    list_coupons,
    list_transactions,
    set_policy,
    settle_invoice,
    top_up,
)
from certwright.rooms.billing.catalogue import Product, shipped
from certwright.rooms.billing.ledger import Posting, Transaction
from certwright.rooms.billing.lookup import MOST_EXPORTED, OrderFilter, export_orders, get_order, list_orders
from certwright.rooms.billing.orders import Asked, cancel_order, place_order, price
from certwright.rooms.billing.payments import MOST_VOUCHERS, PayWith, pay_order
from certwright.rooms.billing.ports import (
    Charge,
    Charged,
    Declined,
    Delivery,
    Fulfilment,
    PaymentProvider,
    PaymentProviders,
    Predecessors,
    Waiting,
    Withdrawal,
)
from certwright.rooms.billing.products import (
    create_product,
    get_product,
    list_products,
    product_history,
    update_product,
)
from certwright.rooms.billing.refunds import (
    approve,
    export_unsubscriptions,
    get_unsubscription,
    list_unsubscriptions,
    reject,
    unsubscribe,
)
from certwright.rooms.billing.rules import coverage_end, inherits
from certwright.rooms.billing.statements import Statement, service_statement
from certwright.rooms.billing.statements import current as current_statement
from certwright.rooms.billing.views import (
    CouponView,
    OrderDetail,
    OrderSummary,
    PaymentView,
    ProductEdit,
    ProductView,
    QuoteView,
    Unsubscription,
)
from certwright.rooms.billing.words import (
    BUILT_IN_METHODS,
    MOST_CERTIFICATES,
    AccountKind,
    BoughtCertificate,
    CertificateType,
    CouponKind,
    DomainType,
    LineKind,
    OrderStatus,
    Policy,
    Predecessor,
    Review,
    Subscription,
    WildcardRule,
)

__all__ = [
    "BUILT_IN_METHODS",
    "MOST_CERTIFICATES",
    "MOST_EXPORTED",
    "MOST_VOUCHERS",
    "AccountKind",
    "Asked",
    "Balance",
    "BoughtCertificate",
    "CertificateType",
    "Charge",
    "Charged",
    "CouponKind",
    "CouponView",
    "Declined",
    "Delivery",
    "DomainType",
    "Fulfilment",
    "LineKind",
    "OrderDetail",
    "OrderFilter",
    "OrderStatus",
    "OrderSummary",
    "PayWith",
    "PaymentProvider",
    "PaymentProviders",
    "PaymentView",
    "Policy",
    "Posting",
    "Predecessor",
    "Predecessors",
    "Product",
    "ProductEdit",
    "ProductView",
    "QuoteView",
    "Review",
    "Statement",
    "Subscription",
    "Transaction",
    "Unsubscription",
    "Waiting",
    "WildcardRule",
    "Withdrawal",
    "approve",
    "cancel_order",
    "coverage_end",
    "create_coupon",
    "create_product",
    "current_statement",
    "disable_coupon",
    "export_orders",
    "export_unsubscriptions",
    "get_balances",
    "get_coupon",
    "get_order",
    "get_policy",
    "get_product",
    "get_unsubscription",
    "inherits",
    "list_coupons",
    "list_orders",
    "list_products",
    "list_transactions",
    "list_unsubscriptions",
    "pay_order",
    "place_order",
    "price",
    "product_history",
    "register",
    "reject",
    "service_statement",
    "set_policy",
    "settle_invoice",
    "shipped",
    "top_up",
    "unsubscribe",
    "update_product",
]


def register(services: Services) -> None:
    services.jobs.register(jobs.LAPSE_STEP, tables.orders, jobs.lapse_step)
    services.jobs.register(payments.CHARGE_STEP, tables.payments, payments.charge_step)
    services.jobs.register(refunds.REFUND_STEP, tables.unsubscriptions, refunds.refund_step)
