//! The web shop whose traces the corpus is made of: twelve services and what calls what.

/// The services, by number.
pub(super) const SERVICES: [&str; 12] = [
    "gateway",
    "frontend",
    "cart",
    "checkout",
    "payment",
    "product-catalog",
    "shipping",
    "currency",
    "recommendation",
    "ad",
    "email",
    "accounting",
];

/// The pods of each service.
pub(super) const PODS_PER_SERVICE: usize = 4;

/// What a span is about; decides its kind and its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    /// An HTTP request served: method, route.
    HttpServer(&'static str, &'static str),
    /// An HTTP request sent on: method, route.
    HttpClient(&'static str, &'static str),
    /// A remote procedure served: service, method.
    RpcServer(&'static str, &'static str),
    /// A remote procedure called: service, method.
    RpcClient(&'static str, &'static str),
    /// A statement on a table: verb, table.
    Sql(&'static str, &'static str),
    /// A cache command.
    Cache(&'static str),
    /// A message sent to a topic.
    Publish(&'static str),
    /// A message taken from a topic.
    Consume(&'static str),
    /// Work within a process: namespace.
    Internal(&'static str),
}

/// One kind of span and what it leads to.
#[derive(Debug)]
pub(super) struct Operation {
    /// Number of the service that records it.
    pub(super) service: usize,
    /// Span name.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) flavor: Flavor,
    /// Median of the time it spends itself, in microseconds.
    pub(super) own_us: f64,
    /// What it leads to, one after the other.
    pub(super) calls: &'static [Call],
}

/// A probable consequence of an operation: it, its probability, how often at most.
pub(super) type Call = (&'static Operation, f64, u64);

const fn leaf(service: usize, name: &'static str, flavor: Flavor, own_us: f64) -> Operation {
    Operation { service, name, flavor, own_us, calls: &[] }
}

/// A remote procedure: the client span of the caller and the server span that it leads to.
macro_rules! rpc {
    ($server:ident, $service:expr, $package:literal, $method:literal, $own_us:expr, [$($call:expr),* $(,)?]; $($client:ident of $caller:expr),+) => {
        static $server: Operation = Operation {
            service: $service,
            name: concat!($package, "/", $method),
            flavor: Flavor::RpcServer($package, $method),
            own_us: $own_us,
            calls: &[$($call),*],
        };
        $(static $client: Operation = Operation {
            service: $caller,
            name: concat!($package, "/", $method),
            flavor: Flavor::RpcClient($package, $method),
            own_us: 350.0,
            calls: &[(&$server, 1.0, 1)],
        };)+
    };
}

/// A page: the gateway's server and client span and the frontend's server span.
macro_rules! page {
    ($root:ident, $method:literal, $route:literal, [$($call:expr),* $(,)?]) => {
        static $root: Operation = Operation {
            service: 0,
            name: concat!("ingress ", $method),
            flavor: Flavor::HttpServer($method, $route),
            own_us: 220.0,
            calls: &[(&Operation {
                service: 0,
                name: $method,
                flavor: Flavor::HttpClient($method, $route),
                own_us: 300.0,
                calls: &[(&Operation {
                    service: 1,
                    name: concat!($method, " ", $route),
                    flavor: Flavor::HttpServer($method, $route),
                    own_us: 1800.0,
                    calls: &[$($call),*],
                }, 1.0, 1)],
            }, 1.0, 1)],
        };
    };
}

static SELECT_PRODUCTS: Operation = leaf(5, "SELECT products", Flavor::Sql("SELECT", "products"), 900.0);
static SELECT_STOCK: Operation = leaf(5, "SELECT inventory", Flavor::Sql("SELECT", "inventory"), 700.0);
static UPDATE_STOCK: Operation = leaf(5, "UPDATE inventory", Flavor::Sql("UPDATE", "inventory"), 1500.0);
static SELECT_ORDERS: Operation = leaf(3, "SELECT orders", Flavor::Sql("SELECT", "orders"), 1100.0);
static INSERT_ORDERS: Operation = leaf(3, "INSERT orders", Flavor::Sql("INSERT", "orders"), 2100.0);
static INSERT_PAYMENTS: Operation = leaf(4, "INSERT payments", Flavor::Sql("INSERT", "payments"), 1900.0);
static SELECT_ADS: Operation = leaf(9, "SELECT ads", Flavor::Sql("SELECT", "ads"), 600.0);
static INSERT_SHIPMENTS: Operation = leaf(6, "INSERT shipments", Flavor::Sql("INSERT", "shipments"), 1700.0);
static SELECT_RATES: Operation = leaf(7, "SELECT rates", Flavor::Sql("SELECT", "rates"), 300.0);
static INSERT_LEDGER: Operation = leaf(11, "INSERT ledger", Flavor::Sql("INSERT", "ledger"), 1300.0);
static SELECT_USERS: Operation = leaf(1, "SELECT users", Flavor::Sql("SELECT", "users"), 800.0);
static CART_HGET: Operation = leaf(2, "HGET", Flavor::Cache("HGET"), 250.0);
static CART_HSET: Operation = leaf(2, "HSET", Flavor::Cache("HSET"), 280.0);
static CART_EXPIRE: Operation = leaf(2, "EXPIRE", Flavor::Cache("EXPIRE"), 180.0);
static CART_DEL: Operation = leaf(2, "DEL", Flavor::Cache("DEL"), 190.0);
static RATES_GET: Operation = leaf(7, "GET rates", Flavor::Cache("GET"), 150.0);
static RENDER: Operation = leaf(1, "render", Flavor::Internal("shop.frontend.Renderer"), 2400.0);
static PRICE_CART: Operation = leaf(3, "priceCart", Flavor::Internal("shop.checkout.Pricing"), 400.0);
static VALIDATE_CARD: Operation = leaf(4, "validateCard", Flavor::Internal("shop.payment.Cards"), 300.0);
static FRAUD_CHECK: Operation = leaf(4, "fraudCheck", Flavor::Internal("shop.payment.Fraud"), 5200.0);
static RANK: Operation = leaf(8, "rank", Flavor::Internal("shop.recommendation.Model"), 3600.0);
static RENDER_MAIL: Operation = leaf(10, "renderTemplate", Flavor::Internal("shop.email.Templates"), 1200.0);

static ORDERS_PROCESS: Operation = Operation {
    service: 11,
    name: "orders process",
    flavor: Flavor::Consume("orders"),
    own_us: 900.0,
    calls: &[(&INSERT_LEDGER, 1.0, 3)],
};
static ORDERS_PUBLISH: Operation = Operation {
    service: 3,
    name: "orders publish",
    flavor: Flavor::Publish("orders"),
    own_us: 700.0,
    calls: &[(&ORDERS_PROCESS, 1.0, 1)],
};

rpc!(GET_PRODUCT, 5, "shop.Catalog", "GetProduct", 300.0, [(&SELECT_PRODUCTS, 1.0, 1), (&SELECT_STOCK, 0.5, 1)];
     FRONTEND_GET_PRODUCT of 1, CHECKOUT_GET_PRODUCT of 3);
rpc!(LIST_PRODUCTS, 5, "shop.Catalog", "ListProducts", 500.0, [(&SELECT_PRODUCTS, 1.0, 1)];
     FRONTEND_LIST_PRODUCTS of 1, RECOMMENDATION_LIST_PRODUCTS of 8);
rpc!(SEARCH_PRODUCTS, 5, "shop.Catalog", "SearchProducts", 700.0, [(&SELECT_PRODUCTS, 1.0, 2), (&SELECT_STOCK, 0.7, 4)];
     FRONTEND_SEARCH_PRODUCTS of 1);
rpc!(RESERVE_STOCK, 5, "shop.Catalog", "ReserveStock", 300.0, [(&UPDATE_STOCK, 1.0, 3)]; CHECKOUT_RESERVE_STOCK of 3);
rpc!(CONVERT, 7, "shop.Currency", "Convert", 120.0, [(&RATES_GET, 0.3, 1)]; FRONTEND_CONVERT of 1, CHECKOUT_CONVERT of 3);
rpc!(CURRENCIES, 7, "shop.Currency", "GetSupportedCurrencies", 100.0, [(&SELECT_RATES, 0.6, 1)]; FRONTEND_CURRENCIES of 1);
rpc!(GET_CART, 2, "shop.Cart", "GetCart", 200.0, [(&CART_HGET, 1.0, 1)]; FRONTEND_GET_CART of 1, CHECKOUT_GET_CART of 3);
rpc!(ADD_ITEM, 2, "shop.Cart", "AddItem", 220.0, [(&CART_HGET, 1.0, 1), (&CART_HSET, 1.0, 1), (&CART_EXPIRE, 1.0, 1)];
     FRONTEND_ADD_ITEM of 1);
rpc!(EMPTY_CART, 2, "shop.Cart", "EmptyCart", 150.0, [(&CART_DEL, 1.0, 1)]; CHECKOUT_EMPTY_CART of 3);
rpc!(RECOMMEND, 8, "shop.Recommendation", "ListRecommendations", 600.0, [(&RECOMMENDATION_LIST_PRODUCTS, 0.4, 1), (&RANK, 1.0, 1)];
     FRONTEND_RECOMMEND of 1);
rpc!(GET_ADS, 9, "shop.Ads", "GetAds", 300.0, [(&SELECT_ADS, 0.8, 1)]; FRONTEND_GET_ADS of 1);
rpc!(GET_QUOTE, 6, "shop.Shipping", "GetQuote", 400.0, []; FRONTEND_GET_QUOTE of 1, CHECKOUT_GET_QUOTE of 3);
rpc!(SHIP_ORDER, 6, "shop.Shipping", "ShipOrder", 500.0, [(&INSERT_SHIPMENTS, 1.0, 1)]; CHECKOUT_SHIP_ORDER of 3);
rpc!(CHARGE, 4, "shop.Payment", "Charge", 900.0, [(&VALIDATE_CARD, 1.0, 1), (&FRAUD_CHECK, 1.0, 1), (&INSERT_PAYMENTS, 1.0, 1)];
     CHECKOUT_CHARGE of 3);
rpc!(SEND_MAIL, 10, "shop.Email", "SendOrderConfirmation", 800.0, [(&RENDER_MAIL, 1.0, 1)]; CHECKOUT_SEND_MAIL of 3);
rpc!(PLACE_ORDER, 3, "shop.Checkout", "PlaceOrder", 900.0, [
        (&CHECKOUT_GET_CART, 1.0, 1), (&CHECKOUT_GET_PRODUCT, 1.0, 4), (&CHECKOUT_CONVERT, 0.8, 4), (&PRICE_CART, 1.0, 1),
        (&CHECKOUT_GET_QUOTE, 1.0, 1), (&CHECKOUT_CHARGE, 1.0, 1), (&CHECKOUT_RESERVE_STOCK, 1.0, 1), (&INSERT_ORDERS, 1.0, 1),
        (&CHECKOUT_SHIP_ORDER, 1.0, 1), (&CHECKOUT_EMPTY_CART, 1.0, 1), (&CHECKOUT_SEND_MAIL, 1.0, 1), (&ORDERS_PUBLISH, 1.0, 1),
     ]; FRONTEND_PLACE_ORDER of 1);
rpc!(GET_ORDER, 3, "shop.Checkout", "GetOrder", 300.0, [(&SELECT_ORDERS, 1.0, 2)]; FRONTEND_GET_ORDER of 1);

page!(
    HOME,
    "GET",
    "/",
    [
        (&FRONTEND_CURRENCIES, 1.0, 1),
        (&FRONTEND_LIST_PRODUCTS, 1.0, 1),
        (&FRONTEND_GET_CART, 0.7, 1),
        (&FRONTEND_CONVERT, 0.6, 4),
        (&FRONTEND_GET_ADS, 0.8, 1),
        (&RENDER, 1.0, 1),
    ]
);
page!(
    PRODUCT,
    "GET",
    "/product/{id}",
    [
        (&FRONTEND_GET_PRODUCT, 1.0, 1),
        (&FRONTEND_GET_CART, 0.7, 1),
        (&FRONTEND_CONVERT, 0.6, 2),
        (&FRONTEND_RECOMMEND, 0.8, 1),
        (&FRONTEND_GET_ADS, 0.5, 1),
        (&RENDER, 1.0, 1),
    ]
);
page!(
    VIEW_CART,
    "GET",
    "/cart",
    [(&FRONTEND_GET_CART, 1.0, 1), (&FRONTEND_GET_PRODUCT, 1.0, 3), (&FRONTEND_GET_QUOTE, 1.0, 1), (&RENDER, 1.0, 1),]
);
page!(
    ADD_TO_CART,
    "POST",
    "/cart",
    [(&SELECT_USERS, 0.5, 1), (&FRONTEND_GET_PRODUCT, 1.0, 1), (&FRONTEND_ADD_ITEM, 1.0, 1),]
);
page!(
    CHECKOUT,
    "POST",
    "/cart/checkout",
    [(&SELECT_USERS, 1.0, 1), (&FRONTEND_PLACE_ORDER, 1.0, 1), (&FRONTEND_RECOMMEND, 0.5, 1), (&RENDER, 1.0, 1),]
);
page!(SEARCH, "GET", "/search", [(&FRONTEND_SEARCH_PRODUCTS, 1.0, 1), (&FRONTEND_CONVERT, 0.5, 4), (&RENDER, 1.0, 1)]);
page!(ORDER, "GET", "/orders/{id}", [(&SELECT_USERS, 1.0, 1), (&FRONTEND_GET_ORDER, 1.0, 1), (&RENDER, 1.0, 1)]);
page!(SET_CURRENCY, "POST", "/setCurrency", [(&FRONTEND_CURRENCIES, 1.0, 1)]);

/// What visitors do, and how often of a hundred times.
pub(super) static VISITS: [(&Operation, u64); 8] = [
    (&HOME, 22),
    (&PRODUCT, 34),
    (&VIEW_CART, 10),
    (&ADD_TO_CART, 11),
    (&CHECKOUT, 7),
    (&SEARCH, 9),
    (&ORDER, 5),
    (&SET_CURRENCY, 2),
];
