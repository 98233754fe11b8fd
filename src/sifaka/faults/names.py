"""What machines call a failure: exception classes, error codes, finish reasons, statuses (floor 1).

Names are written as their makers write them and compared by letters and digits alone, so that
``RateLimitExceeded``, ``rate_limit_exceeded`` and ``rateLimitExceeded`` are one name. Classes are
known by name, never imported: no provider's library is loaded in order to judge its errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from sifaka.faults.table import Verdict

__all__ = [
    "class_verdict",
    "code_verdict",
    "finish_verdict",
    "is_hard_quota",
    "is_identifier",
    "last_resort",
    "number_verdict",
    "saying_verdict",
    "status_verdict",
]

# Exception classes that say more than, or something else than, an error code of that name.
_CLASSES: tuple[tuple[Verdict, str], ...] = (
    (
        Verdict("timeout", billed="no"),
        "ConnectTimeout ConnectTimeoutError ConnectionTimeoutError PoolTimeout",
    ),
    (
        Verdict("timeout"),
        """
        TimeoutError TimeoutException Timeout ReadTimeout WriteTimeout ReadTimeoutError TimedOut
        APITimeoutError ServerTimeoutError SocketTimeoutError TimeoutExpired ModelTimeoutError
        ModelRequestTimeout RunTimedOut RequestTimeoutError GatewayTimeoutError
        """,
    ),
    (
        Verdict("connection", transient=False, billed="no"),
        "SSLCertVerificationError CertificateError ClientConnectorCertificateError SSLCertificateError",
    ),
    (
        Verdict("connection", billed="no"),
        """
        ConnectionRefusedError gaierror herror NameResolutionError NewConnectionError
        EndpointConnectionError ConnectError ClientConnectorError ClientConnectorDNSError
        ProxyError ProxyConnectionError ClientProxyConnectionError ConnectionNotAvailable
        UnknownHostException ServiceRequestError
        """,
    ),
    (
        Verdict("connection"),
        """
        ConnectionError APIConnectionError ModelConnectionError NetworkError ReadError WriteError
        CloseError RemoteProtocolError ProtocolError SSLError ServerDisconnectedError
        ServerDisconnected ClientOSError ClientConnectionError ConnectionClosed
        ConnectionClosedError MaxRetryError RemoteDisconnected TransportError NoResponseError
        StoreUnreachableError WebSocketConnectionClosedError BadStatusLine SocketError
        """,
    ),
    (
        Verdict("truncated", transient=True, billed="partly"),
        """
        IncompleteRead IncompleteReadError ChunkedEncodingError ClientPayloadError
        ResponseStreamingError MidStreamFallbackError IncompleteGenerationError
        """,
    ),
    (
        Verdict("truncated", transient=False, billed="yes"),
        """
        LengthFinishReasonError IncompleteToolCall OutputTokenLimitExceeded
        IncompleteOutputException MaxTokensReachedException
        """,
    ),
    (Verdict("out_of_memory", billed="maybe"), "MemoryError"),
    (Verdict("content_filter", billed="yes"), "ContentFilterFinishReasonError"),
    (
        Verdict("content_filter"),
        """
        ContentFilterError ContentPolicyViolationError BlockedPromptException
        StopCandidateException ResponsibleAIError
        """,
    ),
    (
        Verdict("malformed_output"),
        """
        JSONDecodeError DecodeError OutputParserException APIResponseValidationError
        ResponseValidationError ContentTypeError DecodingError UnknownApiResponseError
        ResponseParsingError
        """,
    ),
    (
        Verdict("validation_failed"),
        """
        ValidationError InstructorRetryException JSONSchemaValidationError ModelRetry
        ToolRetryError InstructorValidationError
        """,
    ),
    (
        Verdict("auth"),
        """
        ModelAuthenticationError AnthropicCredentialsError CredentialsError MissingKeyError
        NoCredentialsError PartialCredentialsError CredentialRetrievalError RefreshError
        DefaultCredentialsError OAuthError TokenRetrievalError UnauthorizedSSOTokenError
        SSOTokenLoadError NoAuthTokenError ProfileNotFound InvalidAPIKeyError InvalidTokenError
        """,
    ),
    (
        Verdict("not_found"),
        "ModelNotFoundError UnknownModelError RepositoryNotFoundError EntryNotFoundError",
    ),
    (Verdict("permission"), "GatedRepoError DisabledRepoError"),
    (
        Verdict("invalid_request"),
        """
        ModelRequestRejectedError UsageError UserError ParamValidationError UnsupportedProtocol
        LocalProtocolError InvalidURL MissingSchema InvalidSchema UnsupportedParamsError
        LocationParseError LocationValueError InvalidHeader InvalidProxyURL UnknownScheme
        NoRegionError InvalidRegionError UnknownParameterError BadRequestKeyError
        HTTPValidationError RequestHeaderFieldsTooLargeError PreconditionFailedError ConflictError
        HTTPNotImplementedError
        """,
    ),
    (Verdict("context_length"), "ModelContextWindowExceededError ContentTooLargeError"),
    (Verdict("quota_exhausted"), "ModelQuotaExceededError PaymentRequiredError"),
    (Verdict("rate_limit"), "ModelRateLimitError"),
    (Verdict("overloaded"), "ModelOverloadedError CapacityNotAvailableError"),
    (
        Verdict("server_error"),
        """
        ModelUnavailableError ModelServerError EngineDeadError MQEngineDeadError
        AsyncEngineDeadError EngineGenerateError ServerError RetryableError ServiceUnavailableError
        BadGatewayError
        """,
    ),
    (
        Verdict("other"),
        """
        CancelledError KeyboardInterrupt SystemExit GeneratorExit RunCancelled UsageLimitExceeded
        OwnershipError DataError
        """,
    ),
)

# Classes that stand for many things: what they mean if no other evidence speaks.
_LAST_RESORT = {"UnexpectedModelBehavior": Verdict("malformed_output")}

# Classes whose name is also an error code, but who stand for any failure of their library.
_VAGUE = "APIError ModelError"

# Quotas that no short wait refills.
_HARD_QUOTA = """
    insufficient_quota insufficient_balance insufficient_credits insufficient_credit
    insufficient_funds insufficient_user_quota billing_hard_limit_reached billing_error
    billing_not_active billing_limit_exceeded credit_balance_exhausted credit_limit_exceeded
    credits_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
    organization_usage_limit_exceeded spend_limit_exceeded spending_limit_reached
    exceeded_current_quota_error ServiceQuotaExceededException payment_required
    BILLING_DISABLED BILLING_NOT_ENABLED
    PaymentRequiredError Arrearage account_overdue AccountOverdueError budget_exceeded
    BudgetExceededError FreeTierOnly monthly_limit_exceeded daily_limit_exceeded
    usage_limit_reached usage_limit_exceeded consumption_limit_reached ModelQuotaExceededError
"""

# Error codes, types, reasons and statuses in words; also the classes that are named after them.
_CODES: tuple[tuple[str, str], ...] = (
    (
        "rate_limit",
        """
        rate_limit rate_limits rate_limit_exceeded rate_limit_error rate_limited rate_limit_reached
        rate_limit_reached_error user_rate_limit_exceeded too_many_requests
        too_many_requests_exception too_many_requests_error rpm_rate_limit_exceeded
        tpm_rate_limit_exceeded requests_limit_exceeded RequestLimitExceeded limit_requests
        ThrottlingException Throttling Throttled ThrottledException slow_down RequestBurstTooFast
        RateQuota RESOURCE_EXHAUSTED too_many_tokens_error concurrency_limit_exceeded 1015 1300
        """,
    ),
    ("quota_exhausted", _HARD_QUOTA + " quota_exceeded quota_limit_exceeded token_quota_exceeded"),
    (
        "overloaded",
        """
        overloaded overloaded_error server_is_overloaded server_overloaded model_overloaded
        engine_overloaded engine_overloaded_error service_overloaded capacity_exceeded
        service_tier_capacity_exceeded flex_tier_capacity_exceeded insufficient_capacity
        no_capacity queue_exceeded queue_full ModelNotReadyException insufficient_system_resource
        resource_unavailable model_loading 3505
        """,
    ),
    (
        "server_error",
        """
        server_error internal_server_error internal_error InternalServerException InternalFailure
        INTERNAL internal_service_error api_error service_unavailable service_unavailable_error
        ServiceUnavailableException UNAVAILABLE unavailable_error temporarily_unavailable
        ModelErrorException ModelStreamErrorException ModelError model_error bad_gateway ABORTED
        DATA_LOSS upstream_error InternalDependencyException backend_error MPAgreementBeingCreated
        engine_error generation_error processing_error internal_exception -32603
        """,
    ),
    (
        "timeout",
        """
        timeout timeout_error request_timeout gateway_timeout DEADLINE_EXCEEDED
        DeadlineExceededError ModelTimeoutException ETIMEDOUT ESOCKETTIMEDOUT ECONNABORTED
        UND_ERR_HEADERS_TIMEOUT UND_ERR_BODY_TIMEOUT UND_ERR_CONNECT_TIMEOUT RequestTimeout
        RequestTimeoutException upstream_timeout timed_out
        """,
    ),
    (
        "connection",
        """
        ECONNREFUSED ECONNRESET ENETRESET ENETDOWN EHOSTDOWN ENOTFOUND EAI_AGAIN EPIPE EHOSTUNREACH
        ENETUNREACH connection_error connection_refused connection_reset UND_ERR_SOCKET network_error
        """,
    ),
    (
        "auth",
        """
        authentication_error invalid_api_key incorrect_api_key invalid_authentication
        invalid_authentication_error incorrect_api_key_error API_KEY_INVALID API_KEY_EXPIRED
        missing_api_key invalid_token invalid_grant expired_token token_expired unauthorized
        unauthorized_error UNAUTHENTICATED UnrecognizedClientException InvalidSignatureException
        ExpiredTokenException ExpiredToken SignatureDoesNotMatch MissingAuthenticationToken
        MissingAuthenticationTokenException InvalidClientTokenId IncompleteSignature
        authentication_failed authentication_required AuthenticationFailed invalid_credentials
        ACCESS_TOKEN_EXPIRED ACCESS_TOKEN_TYPE_UNSUPPORTED CREDENTIALS_MISSING invalid_access_key
        auth_error not_authenticated no_api_key
        """,
    ),
    (
        "permission",
        """
        permission_error permission_denied PermissionDeniedError access_denied
        AccessDeniedException forbidden forbidden_error unsupported_country_region_territory
        not_authorized NotAuthorized SERVICE_DISABLED API_KEY_SERVICE_BLOCKED
        API_KEY_HTTP_REFERRER_BLOCKED API_KEY_IP_ADDRESS_BLOCKED CONSUMER_SUSPENDED
        account_deactivated account_suspended access_terminated_error model_access_denied
        organization_restricted insufficient_permissions insufficient_scope UnauthorizedOperation
        OptInRequired ACCESS_TOKEN_SCOPE_INSUFFICIENT unsupported_location
        """,
    ),
    (
        "not_found",
        """
        not_found not_found_error model_not_found ModelNotFound model_not_found_error no_such_model
        ResourceNotFoundException resource_not_found resource_not_found_error DeploymentNotFound
        deployment_not_found invalid_model InvalidModel unknown_model model_not_exist
        model_decommissioned model_deprecated model_retired unsupported_model model_not_supported
        model_not_available ModelNotOpen
        ENDPOINT_NOT_FOUND RESOURCE_DOES_NOT_EXIST endpoint_not_found route_not_found
        """,
    ),
    (
        "context_length",
        """
        context_length_exceeded context_length_error context_window_exceeded
        context_window_exceeded_error context_limit_exceeded exceed_context_size_error
        request_too_large request_too_large_error payload_too_large request_entity_too_large
        string_above_max_length tokens_limit_reached input_too_long prompt_too_long
        max_context_length_exceeded token_limit_exceeded input_tokens_exceeded
        """,
    ),
    (
        "content_filter",
        """
        content_filter content_filtered content_filter_error content_policy_violation
        ResponsibleAIPolicyViolation moderation_blocked content_blocked prompt_blocked
        DataInspectionFailed data_inspection_failed guardrail_intervened image_safety
        prohibited_content sensitive_content safety_violation cyber_policy_violation
        content_moderation_error InputTextSensitiveContentDetected
        OutputTextSensitiveContentDetected input_moderation content_safety SAFETY_BLOCK
        """,
    ),
    (
        "malformed_output",
        """
        tool_use_failed json_validate_failed malformed_function_call malformed_tool_call
        invalid_tool_call tool_call_parse_error output_parse_error output_parse_failed json_invalid
        OUTPUT_PARSING_FAILURE json_parse_error
        """,
    ),
    ("validation_failed", "output_validation_error schema_validation_failed"),
    ("out_of_memory", "out_of_memory OutOfMemory OutOfMemoryError OOM oom_killed insufficient_memory"),
    ("truncated", "max_output_tokens incomplete_generation"),
    (
        "invalid_request",
        """
        invalid_request_error invalid_request bad_request BadRequestError INVALID_ARGUMENT
        INVALID_PARAMETER_VALUE
        ValidationException validation_error validation unsupported_parameter unsupported_value
        invalid_value invalid_parameter invalid_type missing_required_parameter invalid_prompt
        unprocessable_entity UnprocessableEntityError FAILED_PRECONDITION OUT_OF_RANGE
        UNIMPLEMENTED not_supported_error not_implemented OperationNotSupported invalid_image
        unsupported_file unknown_parameter invalid_params invalid_input parameter_invalid
        method_not_allowed unsupported_media_type InvalidRequestException missing_parameter
        integer_above_max_value integer_below_min_value decimal_above_max_value
        decimal_below_min_value array_above_max_length empty_array invalid_schema -32600 -32601 -32602
        -32700 invalid_message invalid_messages invalid_request_body
        SerializationException ParamValidationError InvalidParameterException
        """,
    ),
    ("other", "CANCELLED canceled client_closed_request request_cancelled"),
)

# Why a model stopped. The numbers are Gemini's, which its older library shows bare.
_FINISHES: tuple[tuple[Verdict, str], ...] = (
    (
        Verdict("truncated", transient=False, billed="yes"),
        """
        length max_tokens max_output_tokens model_length max_length token_limit limit 2
        max_predicted_tokens_reached ALTERNATIVE_STATUS_TRUNCATED_FINAL
        """,
    ),
    (
        Verdict("content_filter", billed="yes"),
        """
        content_filter content_filtered SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII refusal
        IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION guardrail_intervened ERROR_TOXIC
        sensitive MODEL_ARMOR JAILBREAK blacklist toxic flagged blocked moderation policy_violation
        ALTERNATIVE_STATUS_CONTENT_FILTER 3 4 7 8 9
        """,
    ),
    (
        Verdict("malformed_output"),
        """
        MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL MALFORMED_RESPONSE malformed_model_output
        malformed_tool_use TOO_MANY_TOOL_CALLS 10
        """,
    ),
    (
        Verdict("context_length", billed="yes"),
        "model_context_window_exceeded ERROR_LIMIT context_length_reached",
    ),
    (Verdict("overloaded", billed="partly"), "insufficient_system_resource"),
    (Verdict("timeout", billed="partly"), "time_limit timeout"),
    (Verdict("server_error", billed="partly"), "error network_error failed model_unloaded"),
    (Verdict("other", billed="partly"), "abort aborted cancelled canceled user_cancel user_stopped"),
)

_STATUSES: dict[int, Verdict] = {
    400: Verdict("invalid_request"),
    401: Verdict("auth"),
    402: Verdict("quota_exhausted"),
    403: Verdict("permission"),
    404: Verdict("not_found"),
    407: Verdict("auth"),  # to the proxy
    408: Verdict("timeout"),
    410: Verdict("not_found"),
    413: Verdict("context_length"),
    419: Verdict("auth"),
    424: Verdict("server_error"),  # Bedrock and Hugging Face: the model failed
    425: Verdict("server_error"),
    429: Verdict("rate_limit"),
    451: Verdict("permission"),
    499: Verdict("other"),  # whoever asked hung up
    501: Verdict("invalid_request"),
    504: Verdict("timeout"),
    509: Verdict("quota_exhausted"),
    511: Verdict("auth"),  # to the network
    522: Verdict("timeout", billed="no"),
    524: Verdict("timeout"),
    526: Verdict("server_error", transient=False, billed="no"),  # the origin's certificate
    529: Verdict("overloaded"),
    598: Verdict("timeout"),
    599: Verdict("timeout"),
}
# Error numbers of Linux, macOS and Windows, and of their resolvers (negative, 8 and 110xx).
_NUMBERS: tuple[tuple[Verdict, tuple[int, ...]], ...] = (
    (Verdict("timeout"), (60, 110, 10060)),
    (Verdict("connection", billed="no"), (61, 111, 10061)),
    (Verdict("connection", billed="no"), (50, 51, 65, 100, 101, 113, 10050, 10051, 10065)),
    (Verdict("connection", billed="no"), (-5, -3, -2, 8, 11001, 11002)),
    (Verdict("connection"), (32, 53, 54, 57, 103, 104, 107, 10053, 10054, 10057)),
    (Verdict("out_of_memory"), (12,)),
    (Verdict("permission"), (1, 13)),
)

# Two makers use it for opposite things (a bad token, a full tier): only words can tell.
_AMBIGUOUS = frozenset({498})


def _key(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _index(rows: Iterable[tuple[Verdict, str]]) -> dict[str, Verdict]:
    return {_key(name): verdict for verdict, names in rows for name in names.split()}


@cache
def _codes() -> dict[str, Verdict]:
    return _index((Verdict(kind), names) for kind, names in _CODES)


@cache
def _classes() -> dict[str, Verdict]:
    vague = set(map(_key, _VAGUE.split()))
    return {k: v for k, v in _codes().items() if k not in vague} | _index(_CLASSES)


@cache
def _hard_quotas() -> frozenset[str]:
    return frozenset(map(_key, _HARD_QUOTA.split()))


@cache
def _finishes() -> dict[str, Verdict]:
    return _index(_FINISHES)


def class_verdict(name: str, module: str = "") -> Verdict | None:
    """What an exception class of that name says, or None."""
    if _key(name) == "validationerror" and module.partition(".")[0] == "botocore":
        return Verdict("invalid_request")  # of our call's parameters, not of an answer
    return _classes().get(_key(name))


def last_resort(name: str) -> Verdict | None:
    """What an exception class of that name means if nothing else says anything, or None."""
    return _LAST_RESORT.get(name)


def code_verdict(code: str) -> Verdict | None:
    """What an error code, type or reason says, or None; ``a.b#C`` is looked up by its parts too."""
    found = _codes().get(_key(code))
    if found is not None or not any(mark in code for mark in ".#/:"):
        return found
    parts = code.replace("#", ".").replace("/", ".").replace(":", ".").split(".")
    return next((v for v in map(_codes().get, map(_key, reversed(parts))) if v), None)


def saying_verdict(said: str) -> Verdict | None:
    """What a message of a word or two says that is the name of a code, or None, as ``Not found`` does."""
    return _codes().get(_key(said))


def is_hard_quota(name: str) -> bool:
    """Whether a class or code of that name means a quota that no short wait refills."""
    return _key(name) in _hard_quotas()


def is_identifier(code: str) -> bool:
    """Whether a code is one word, as machines write it, and no sentence or number."""
    return code[:1].isalpha() and not any(map(str.isspace, code))


def number_verdict(number: int) -> Verdict | None:
    """What an error number of the operating system says, or None."""
    return next((verdict for verdict, numbers in _NUMBERS if number in numbers), None)


def finish_verdict(reason: str) -> Verdict | None:
    """What a finish, stop or block reason says, or None if it is a good one."""
    return _finishes().get(_key(reason.rpartition(".")[2]))


def status_verdict(status: int) -> Verdict | None:
    """What an HTTP status says on its own, or None if it is no failure or can mean anything."""
    if status in _AMBIGUOUS or not 400 <= status <= 599:
        return None
    return _STATUSES.get(status) or Verdict("invalid_request" if status < 500 else "server_error")
