//! The vendors whose token servers have a fixed shape: one table, each row with the address of the
//! document that it follows. Presets, first configurations and the gallery of the guide are made of it.

use super::client_auth::{BasicEncoding, ClientAuth};

/// A vendor's token server, as its document describes it. Words in capitals stand for what a customer
/// fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vendor {
    /// The name of its preset.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The address of the vendor's document.
    pub document: &'static str,
    /// The token endpoint.
    pub token_url: &'static str,
    /// The client authentication method.
    pub auth: ClientAuth,
    /// The body of a token request is JSON.
    pub json: bool,
    /// The value of `grant_type`; `None` if the field is not sent.
    pub grant_type: Option<&'static str>,
    /// Scopes are sent.
    pub send_scope: bool,
    /// The fields of id and secret; `None` if the id is not in the body.
    pub id_and_secret: Option<(&'static str, &'static str)>,
    /// The fields of the token and its life in the answer.
    pub token_and_life: (&'static str, &'static str),
    /// The field of the end of a token's life.
    pub expires_at: Option<&'static str>,
    /// `token_type` values beside `Bearer`.
    pub token_types: &'static [&'static str],
    /// The life of a token whose answer states none, in seconds.
    pub default_lifetime: u64,
    /// Lines of a first configuration: the place of the secret, if it is not `client_secret`.
    pub keys: &'static str,
    /// Lines of the `request` table.
    pub request: &'static str,
    /// Lines of the upstream.
    pub upstream: &'static str,
    /// The API, and a path of it.
    pub api: (&'static str, &'static str),
    /// The method of that path.
    pub method: &'static str,
    /// A scope that it needs; empty for none.
    pub scope: &'static str,
    /// Oddities and quotas.
    pub notes: &'static [&'static str],
}

const OWN_API: (&str, &str) = ("https://API.example.com", "/v1/accounts/{id}");
const BASIC: ClientAuth = ClientAuth::ClientSecretBasic(BasicEncoding::Raw);

/// RFC 6749 as most vendors read it; rows name what is different.
const USUAL: Vendor = Vendor {
    name: "",
    about: "",
    document: "",
    token_url: "",
    auth: ClientAuth::ClientSecretPost,
    json: false,
    grant_type: Some("client_credentials"),
    send_scope: true,
    id_and_secret: Some(("client_id", "client_secret")),
    token_and_life: ("access_token", "expires_in"),
    expires_at: None,
    token_types: &[],
    default_lifetime: 300,
    keys: "",
    request: "",
    upstream: "",
    api: OWN_API,
    method: "GET",
    scope: "",
    notes: &[],
};

/// All vendors, in the order in which they are shown.
pub const VENDORS: [Vendor; 26] = [
    Vendor {
        name: "auth0",
        about: "Auth0: form body with the audience of the API",
        document: "https://auth0.com/docs/get-started/authentication-and-authorization-flow/client-credentials-flow/call-your-api-using-the-client-credentials-flow",
        token_url: "https://TENANT.auth0.com/oauth/token",
        keys: "audience = \"https://API.example.com\"",
        notes: &[
            "The audience is the identifier of the API in Auth0. A request without it is refused, unless the tenant \
             has a default audience.",
            "Plans count tokens for machines by the month: tokens = \"union\" asks for fewer.",
        ],
        ..USUAL
    },
    Vendor {
        name: "entra-v1",
        about: "Microsoft Entra ID, v1 endpoint: form body with a resource, no scope",
        document: "https://learn.microsoft.com/en-us/previous-versions/azure/active-directory/azuread-dev/v1-oauth2-client-creds-grant-flow",
        token_url: "https://login.microsoftonline.com/TENANT/oauth2/token",
        send_scope: false,
        keys: "resource = \"https://management.azure.com/\"",
        api: ("https://management.azure.com", "/subscriptions"),
        notes: &[
            "Numbers of the answer are strings (expires_in, expires_on); both forms are read.",
            "The resource is the App ID URI of the API, its slash at the end included.",
        ],
        ..USUAL
    },
    Vendor {
        name: "entra-v2",
        about: "Microsoft Entra ID, v2 endpoint: form body with one scope that ends in /.default",
        document: "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow",
        token_url: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
        api: ("https://graph.microsoft.com", "/v1.0/users"),
        scope: "https://graph.microsoft.com/.default",
        notes: &[
            "The scope is the App ID URI of the API with /.default; permissions are granted to the app \
             in the portal, and other scopes are refused (AADSTS1002012).",
            "Tokens with many groups or roles are long: up to 200 groups are listed.",
        ],
        ..USUAL
    },
    Vendor {
        name: "okta",
        about: "Okta custom authorization server: HTTP Basic, form body with scope",
        document: "https://developer.okta.com/docs/guides/implement-grant-type/clientcreds/main/",
        token_url: "https://ORG.okta.com/oauth2/default/v1/token",
        auth: BASIC,
        scope: "CUSTOM_SCOPE",
        notes: &[
            "A custom scope is required, unless the server has default scopes: else the answer is invalid_scope.",
            "The APIs of Okta itself take client_auth = \"private_key_jwt\" only, at /oauth2/v1/token.",
        ],
        ..USUAL
    },
    Vendor {
        name: "keycloak",
        about: "Keycloak service account: HTTP Basic, form body",
        document: "https://www.keycloak.org/docs/latest/server_admin/index.html#_service_accounts",
        token_url: "https://HOST/realms/REALM/protocol/openid-connect/token",
        auth: BASIC,
        notes: &[
            "Before version 17 the path begins with /auth/realms.",
            "The client needs Client authentication and Service accounts roles switched on.",
        ],
        ..USUAL
    },
    Vendor {
        name: "cognito",
        about: "Amazon Cognito user pool: HTTP Basic, form body with scopes of a resource server",
        document: "https://docs.aws.amazon.com/cognito/latest/developerguide/token-endpoint.html",
        token_url: "https://DOMAIN.auth.REGION.amazoncognito.com/oauth2/token",
        auth: BASIC,
        scope: "RESOURCE_SERVER/SCOPE",
        notes: &[
            "The answer lists no scopes: what was asked for counts as granted, although scopes that the app client \
             may not have are left out silently.",
            "Each token of a machine is billed: tokens = \"union\" asks for fewer.",
        ],
        ..USUAL
    },
    Vendor {
        name: "ping",
        about: "PingOne: HTTP Basic, form body",
        document: "https://developer.pingidentity.com/pingone-api/",
        token_url: "https://auth.pingone.com/ENVIRONMENT_ID/as/token",
        auth: BASIC,
        api: ("https://api.pingone.com", "/v1/environments/{id}/users"),
        notes: &[
            "Other regions have hosts of their own: auth.pingone.eu, auth.pingone.ca, auth.pingone.com.au, \
             auth.pingone.sg, auth.pingone.asia.",
            "The application's token endpoint authentication method must be CLIENT_SECRET_BASIC.",
        ],
        ..USUAL
    },
    Vendor {
        name: "forgerock",
        about: "ForgeRock (Ping Advanced Identity Cloud, AM): form body with scope",
        document: "https://docs.pingidentity.com/pingam/7.5/oauth2-guide/oauth2-client-cred-grant.html",
        token_url: "https://TENANT.forgeblocks.com/am/oauth2/realms/root/realms/alpha/access_token",
        scope: "write",
        notes: &[
            "The path names the realm: an AM of your own has /am/oauth2/realms/root/access_token.",
            "The client's Token Endpoint Authentication Method must be client_secret_post; its default is \
             client_secret_basic, which client_auth takes.",
        ],
        ..USUAL
    },
    Vendor {
        name: "salesforce",
        about: "Salesforce client credentials flow: form body without scope, no lifetime in the answer",
        document: "https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_client_credentials_flow.htm&type=5",
        token_url: "https://MYDOMAIN.my.salesforce.com/services/oauth2/token",
        send_scope: false,
        default_lifetime: 900,
        api: ("https://MYDOMAIN.my.salesforce.com", "/services/data/v62.0/query"),
        notes: &[
            "The answer states no lifetime. A session lasts as the org's session settings say, 15 minutes \
             at least, which is taken; set default_lifetime to the org's value.",
            "The flow works on the My Domain host only, not on login.salesforce.com, and needs a user to \
             run as.",
        ],
        ..USUAL
    },
    Vendor {
        name: "ebay",
        about: "eBay application tokens: HTTP Basic, form body, token type Application Access Token",
        document: "https://developer.ebay.com/api-docs/static/oauth-client-credentials-grant.html",
        token_url: "https://api.ebay.com/identity/v1/oauth2/token",
        auth: BASIC,
        token_types: &["Application Access Token"],
        api: ("https://api.ebay.com", "/buy/browse/v1/item_summary/search"),
        scope: "https://api.ebay.com/oauth/api_scope",
        notes: &[
            "Token requests are limited to 1,000 a day: see token_budget.",
            "The sandbox is https://api.sandbox.ebay.com/identity/v1/oauth2/token.",
        ],
        ..USUAL
    },
    Vendor {
        name: "paypal",
        about: "PayPal REST: HTTP Basic, form body without scope",
        document: "https://developer.paypal.com/api/rest/authentication/",
        token_url: "https://api-m.paypal.com/v1/oauth2/token",
        auth: BASIC,
        send_scope: false,
        api: ("https://api-m.paypal.com", "/v2/checkout/orders/{id}"),
        notes: &[
            "Scopes are those of the app in the developer portal.",
            "The sandbox is https://api-m.sandbox.paypal.com/v1/oauth2/token.",
            "PayPal-Request-Id makes a repeated POST safe, where the API supports it; apps send it.",
        ],
        ..USUAL
    },
    Vendor {
        name: "xero",
        about: "Xero custom connections: HTTP Basic, form body with scope",
        document: "https://developer.xero.com/documentation/guides/oauth2/custom-connections/",
        token_url: "https://identity.xero.com/connect/token",
        auth: BASIC,
        api: ("https://api.xero.com", "/api.xro/2.0/Contacts"),
        scope: "accounting.contacts.read",
        notes: &[
            "One custom connection leads to one organisation; xero-tenant-id is not needed.",
            "After invalid_scope: the scope must be one of the connection's, and send_scope = false asks for \
             all of them.",
        ],
        ..USUAL
    },
    Vendor {
        name: "sap-xsuaa",
        about: "SAP BTP (XSUAA): form body",
        document: "https://github.com/SAP-docs/btp-cloud-platform/blob/main/docs/50-administration-and-ops/access-sap-authorization-and-trust-management-service-apis-ebc9113.md",
        token_url: "https://SUBDOMAIN.authentication.REGION.hana.ondemand.com/oauth/token",
        api: ("https://APP.cfapps.REGION.hana.ondemand.com", "/v1/accounts/{id}"),
        send_scope: false,
        notes: &[
            "token_url, client_id and client_secret are in the service key: its url with /oauth/token, \
             clientid and clientsecret. Ids hold ! and |.",
        ],
        ..USUAL
    },
    Vendor {
        name: "sap-cpi",
        about: "SAP Cloud Integration (CPI): HTTP Basic, form body without scope",
        document: "https://help.sap.com/docs/cloud-integration/sap-cloud-integration/oauth-with-client-credentials-grant-for-api-clients",
        token_url: "https://SUBDOMAIN.authentication.REGION.hana.ondemand.com/oauth/token",
        auth: BASIC,
        send_scope: false,
        api: (
            "https://TENANT.it-cpiNNN.cfapps.REGION.hana.ondemand.com",
            "/api/v1/IntegrationPackages",
        ),
        notes: &[
            "Ids hold ! and |, which HTTP Basic carries unencoded here (basic_encoding = \"raw\").",
            "Writing calls of the API want an X-CSRF-Token, which apps fetch with a GET.",
        ],
        ..USUAL
    },
    Vendor {
        name: "adobe-ims",
        about: "Adobe IMS server-to-server: form body, scopes in commas",
        document: "https://developer.adobe.com/developer-console/docs/guides/authentication/ServerToServerAuthentication/IMS",
        token_url: "https://ims-na1.adobelogin.com/ims/token/v3",
        send_scope: false,
        request: "extra = { scope = \"openid,AdobeID,user_management_sdk\" }",
        upstream: "set_headers.X-Api-Key.value = \"CLIENT_ID\"",
        api: ("https://usermanagement.adobe.io", "/v2/usermanagement/groups/{org}/{page}"),
        notes: &[
            "Scopes are one text with commas, under request.extra; routes name none.",
            "APIs want the client id in x-api-key too: set_headers of the upstream.",
        ],
        ..USUAL
    },
    Vendor {
        name: "zoom",
        about: "Zoom server-to-server OAuth: HTTP Basic, grant type account_credentials",
        document: "https://developers.zoom.us/docs/internal-apps/s2s-oauth/",
        token_url: "https://zoom.us/oauth/token",
        auth: BASIC,
        grant_type: Some("account_credentials"),
        send_scope: false,
        request: "extra = { account_id = \"ACCOUNT_ID\" }",
        api: ("https://api.zoom.us", "/v2/users"),
        notes: &[
            "Meeting UUIDs that begin with / or hold // are encoded twice: such a route sets \
             allow_encoded_percent = true.",
        ],
        ..USUAL
    },
    Vendor {
        name: "gocardless",
        about: "GoCardless Bank Account Data: JSON secret_id and secret_key, answer access",
        document: "https://developer.gocardless.com/bank-account-data/quick-start-guide",
        token_url: "https://bankaccountdata.gocardless.com/api/v2/token/new/",
        json: true,
        grant_type: None,
        send_scope: false,
        id_and_secret: Some(("secret_id", "secret_key")),
        token_and_life: ("access", "access_expires"),
        api: ("https://bankaccountdata.gocardless.com", "/api/v2/institutions/"),
        notes: &[
            "Paths end in a slash, and one without is redirected: write it in routes too.",
            "The refresh token has an endpoint of its own and is not used.",
            "Banks limit the calls for an account to a few a day.",
            "New clients are not accepted at present.",
        ],
        ..USUAL
    },
    Vendor {
        name: "truelayer",
        about: "TrueLayer: form body with scope",
        document: "https://docs.truelayer.com/docs/generate-a-payments-access-token",
        token_url: "https://auth.truelayer.com/connect/token",
        api: ("https://api.truelayer.com", "/v3/payments/{id}"),
        scope: "payments",
        notes: &[
            "Payments are signed by the app (Tl-Signature) over path and body, which are forwarded as \
             they are; sign the path without the mount.",
            "The sandbox is https://auth.truelayer-sandbox.com/connect/token.",
        ],
        ..USUAL
    },
    Vendor {
        name: "tink",
        about: "Tink: form body with scope",
        document: "https://docs.tink.com/resources/api-setup/get-access-token",
        token_url: "https://api.tink.com/api/v1/oauth/token",
        api: ("https://api.tink.com", "/api/v1/user/create"),
        method: "POST",
        scope: "user:create",
        notes: &["Several scopes are one text with commas: then send_scope = false and \
             request.extra = { scope = \"user:create,authorization:grant\" }."],
        ..USUAL
    },
    Vendor {
        name: "fedex",
        about: "FedEx: form body without scope",
        document: "https://developer.fedex.com/api/en-us/catalog/authorization/v1/docs.html",
        token_url: "https://apis.fedex.com/oauth/token",
        send_scope: false,
        api: ("https://apis.fedex.com", "/track/v1/trackingnumbers"),
        method: "POST",
        notes: &[
            "client_id is the API key and client_secret the secret key of the project.",
            "The sandbox is https://apis-sandbox.fedex.com/oauth/token.",
            "Integrators and compatible providers, who add child_Key and child_secret and another grant_type, are not \
             supported.",
        ],
        ..USUAL
    },
    Vendor {
        name: "ups",
        about: "UPS: HTTP Basic, form body without scope, numbers as strings",
        document: "https://developer.ups.com/api/reference/oauth/client-credentials",
        token_url: "https://onlinetools.ups.com/security/v1/oauth/token",
        auth: BASIC,
        send_scope: false,
        request: "headers = { x-merchant-id = \"ACCOUNT_NUMBER\" }",
        api: ("https://onlinetools.ups.com", "/api/track/v1/details/{inquiryNumber}"),
        notes: &[
            "x-merchant-id is the shipper's account number; it may be left out.",
            "Calls want transId and transactionSrc, which apps send.",
            "The test host is https://wwwcie.ups.com/security/v1/oauth/token.",
        ],
        ..USUAL
    },
    Vendor {
        name: "amadeus",
        about: "Amadeus Enterprise: form body without scope",
        document: "https://developers.amadeus.com/self-service/apis-docs/guides/developer-guides/API-Keys/authorization/",
        token_url: "https://travel.api.amadeus.com/v1/security/oauth2/token",
        send_scope: false,
        api: ("https://travel.api.amadeus.com", "/v1/reference-data/locations"),
        notes: &[
            "Clients of Amadeus Enterprise only: the self-service APIs at api.amadeus.com ended on 17 July 2026. Their \
             document shows the same token request.",
            "The test host is https://test.travel.api.amadeus.com; write token_url and url with the hosts that your \
             contract names.",
            "Calls have a rate by the second and a quota by the month.",
        ],
        ..USUAL
    },
    Vendor {
        name: "dynatrace",
        about: "Dynatrace account API: form body with scope and the account as resource",
        document: "https://docs.dynatrace.com/docs/manage/identity-access-management/access-tokens-and-oauth-clients/oauth-clients",
        token_url: "https://sso.dynatrace.com/sso/oauth2/token",
        keys: "resource = \"urn:dtaccount:ACCOUNT_UUID\"",
        api: ("https://api.dynatrace.com", "/iam/v1/accounts/{accountUuid}/users"),
        scope: "account-idm-read",
        notes: &["Tokens live five minutes."],
        ..USUAL
    },
    Vendor {
        name: "apigee",
        about: "Apigee: HTTP Basic, form body, token type BearerToken, numbers as strings",
        document: "https://docs.apigee.com/api-platform/security/oauth/oauth-20-client-credentials-grant-type",
        token_url: "https://ORG-ENV.apigee.net/oauth/accesstoken",
        auth: BASIC,
        token_types: &["BearerToken"],
        api: ("https://ORG-ENV.apigee.net", "/v1/accounts/{id}"),
        notes: &["The path of the token endpoint is the API provider's choice; some want \
             /oauth/client_credential/accesstoken?grant_type=client_credentials, then with \
             request.omit = [\"grant_type\"]."],
        ..USUAL
    },
    Vendor {
        name: "airwallex",
        about: "Airwallex: id and API key in headers, answer token and expires_at",
        document: "https://www.airwallex.com/docs/api/authentication/api_access_token",
        token_url: "https://api.airwallex.com/api/v1/authentication/login",
        auth: ClientAuth::None,
        json: true,
        grant_type: None,
        send_scope: false,
        id_and_secret: None,
        token_and_life: ("token", "expires_in"),
        expires_at: Some("expires_at"),
        keys: "# The id is sent in a header, below.\nclient_id = \"CLIENT_ID\"",
        request: "headers = { x-client-id = \"CLIENT_ID\", \
                  x-api-key = { file = \"/run/secrets/airwallex_api_key\" } }",
        api: ("https://api.airwallex.com", "/api/v1/balances/current"),
        notes: &[
            "A token lives 30 minutes; its end is an ISO 8601 date, corrected by the Date of the answer.",
            "A scoped key for several accounts wants x-login-as among the headers.",
            "The sandbox is https://api.sandbox.airwallex.com/api/v1/authentication/login, or for older accounts \
             https://api-demo.airwallex.com/api/v1/authentication/login.",
        ],
        ..USUAL
    },
    Vendor {
        name: "marketo",
        about: "Adobe Marketo Engage: form body without scope; the same token until it ends",
        document: "https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/authentication",
        token_url: "https://MUNCHKIN.mktorest.com/identity/oauth/token",
        send_scope: false,
        api: ("https://MUNCHKIN.mktorest.com", "/rest/v1/leads.json"),
        notes: &[
            "The document shows the parameters in the query; here they are in the body of a POST, where \
             no log shows them.",
            "The server returns the same token with what is left of its life until it ends.",
            "The API reports an expired token (601, 602) in the body of a 200, which is not read: a call \
             in that second fails once.",
            "Calls are limited to 100 in 20 seconds and 50,000 a day.",
        ],
        ..USUAL
    },
];
