r"""The families of phrases in which people tell a failure, kind by kind (floor 1).

They are tried in this order, the more telling before the vaguer, on a text that
:func:`sifaka.faults.phrases.plain` has made plain: lower case, words apart, no quotes, no web
addresses. Each alternative matches whole words only; ``(?: \S+){0,n}`` stands for a few words more.
"""

from __future__ import annotations

from sifaka.faults.table import Verdict

__all__ = ["FAMILIES", "HARD_QUOTA", "LIMIT_AND_REQUESTED", "PER_DAY", "PER_MINUTE", "WRONG_SETTING"]

PER_MINUTE = r"(?:(?:per|a|each|/)|\d+ ?/) ?(?:second|sec|minute|min|hour)|rpm|tpm"
PER_DAY = r"(?:(?:per|a|each|/)|\d+ ?/) ?(?:day|week|month)|daily|weekly|monthly|rpd|tpd"

LIMIT_AND_REQUESTED = (
    r"limit:? ?(?P<limit>[\d,]{1,20})(?:\W+(?:used|current):? ?[\d,]{1,20})?"
    r"\W+requested:? ?(?P<requested>[\d,]{1,20})"
)
"""``Limit 6000, Used 5000, Requested 6500``."""

# Money, or a quota that no short wait refills.
HARD_QUOTA = (
    r"insufficient (?:(?!to )\S+ ){0,4}(?:quota|balance|credits?|funds)",
    r"credit balance",
    r"(?:cloud |prepa\w+ |included )?credits? (?:\w+ ){0,3}(?:exhausted|depleted|expired|used up)",
    (
        r"(?:no|out of|not enough|more|any|lacks?|all available|of your) (?:\w+ )?credits?"
        r"(?! (?:were|was|will))"
    ),
    r"(?:used|spent|consumed|exhausted) (?:up )?(?:all )?(?:\w+ ){0,2}credits",
    r"(?:negative|zero|low) balance|balance is (?:too low|insufficient|negative)",
    r"spend(?:ing)? (?:limit|cap)s?|(?:credit|key|plan|account) limit (?:\w+ )?(?:exceeded|reached)",
    r"billing (?:\w+ ){0,3}(?:limit|not active|inactive|disabled|enabled)|enable billing",
    r"(?:extra|additional|paid) usage|out of (?:\w+ )?(?:usage|quota|funds)|purchase a subscription",
    r"no (?:remaining |more |available )?quota",
    r"account (?:\S+ )?is (?:not active|inactive|in arrears)|good standing",
    r"payment required|unpaid|arrears?|arrearage|past invoices|over ?due|recharge|top up",
    r"limit: ?0(?! ?[.,]?\d)",
    r"quota id\W{1,4}[\w -]{0,60}per day",
    r"monthly included|can only afford|budget (?:has been )?exceeded|exceeded (?:your |the )?budget",
    r"usage limits?(?: \w+){0,3} (?:reached|exceeded|hit)|regain access",
    r"specified (?:api )?usage limits?",
)

# A quota, unless a short wait is stated or the limit is one per minute.
_SOFT_QUOTA = (
    r"(?:(?:per|a|each|/)|\d+ ?/) ?(?:day|week|month)|rpd|tpd",
    (
        r"(?:hit|reached|used up|exhausted) (?:your|the|its|all) "
        r"(?:(?!rate|requests?|tokens?|concurren|length|context|output|max)\S+ ){0,3}"
        r"(?:limit|quota|capacity|allowance|allocation|credits?|tier)"
    ),
    (
        r"(?:daily|weekly|monthly) (?:\S+ ){0,3}"
        r"(?:limits?|quota|allowance|allocation|usage|credits?|cap)"
    ),
    r"free (?:time|trial|tier) (?:limit|has ended|is over|exhausted|expired)",
    r"(?:is|are|was|were|been) (?:now )?(?:used up|depleted|spent)",
    r"quota(?: \S+){0,4} (?:exceeded|exhausted|reached|used up|depleted)",
    r"(?:exceed\w*|exhausted|reached|over|out of) (?:[\w-]+ ){0,4}quota|quota exceeded",
)

# A setting that is wrong: its name ("timeout", "rate limit") is not what happened.
WRONG_SETTING = (
    (
        r"(?:unknown|unsupported|unrecognized|unexpected|invalid) (?:\S+ ){0,3}(?:parameters?"
        r"|arguments?|fields?|options?|settings?|propert(?:y|ies)):? \w+"
    ),
    r"\w+: must be (?:greater|less|larger|smaller|positive|between|at (?:least|most)|one of|an? )",
    r"loc\W{1,4}body|body: (?:\S+ ){1,4}(?:is )?required",
)

FAMILIES: tuple[tuple[Verdict, tuple[str, ...]], ...] = (
    (
        Verdict("out_of_memory"),
        (
            r"out[ -]of[ -]memory|oom(?:[ -]?killed)?|memory error|bad alloc",
            r"(?:not enough|insufficient|low|no) (?:\w+ ){0,2}memory",
            r"more (?:\w+ )?memory(?: \S+){0,4} than",
            (
                r"(?:can ?not|could not|failed to|unable to|error) (?:re)?allocat\w* "
                r"(?:\S+ ){0,5}(?:memory|buffer|cache|tensor|[kmg]i?b)"
            ),
            r"stored in (?:the )?kv cache|signal: killed",
        ),
    ),
    (
        Verdict("rate_limit", transient=False),
        (
            (
                r"(?:request|prompt|input|messages?) (?:is |are )?too large(?: \S+){0,14}"
                r" (?:\(?tpm\)?|tokens per min(?:ute)?|rate limits?)"
            ),
        ),
    ),
    (Verdict("quota_exhausted"), HARD_QUOTA),
    (
        Verdict("overloaded"),
        (
            r"overload(?:ed|ing)?|over capacity|at (?:full |maximum )?capacity|too busy",
            (
                r"capacity (?:\w+ )?exceeded|exceeded(?: \S+)? capacity"
                r"|(?:no|insufficient|not enough|out of|lack of) capacity"
            ),
            r"(?:high|heavy|peak|increased|unusual) (?:\w+ )?(?:demand|traffic|loads?|volume)",
            r"(?:server|service|system|model|engine|we) (?:is |are )?(?:currently |very )?busy",
            r"capacity (?:limits?|constraints?|issues?|shortage)",
            r"maximum pending requests|(?:queue|backlog) (?:is |was )?(?:full|exceeded)",
            (
                r"(?:is |still )?(?:currently |still )?loading(?: the)? model"
                r"|(?:is |still )(?:currently |still )?(?:loading|warming up|starting up)"
            ),
            r"not ready (?:to|for)|no (?:available|idle|free) (?:instances?|workers?|replicas?|slots?)",
            r"no instances? available|too many (?:\w+ )?connections",
        ),
    ),
    (Verdict("quota_exhausted"), _SOFT_QUOTA),
    (
        Verdict("rate_limit"),
        (
            r"rate[ -]?limit(?:s|ed|ing|er)?|too many (?:concurrent |api |pending )?requests",
            r"too many tokens,? (?:please wait|per|processed)|throttl(?:ed?|ing)",
            (
                r"(?:requests?|tokens?|calls?|queries|generations) ?(?:per|/|a) ?"
                r"(?:second|sec|minute|min|hour)|rpm|tpm|qps"
            ),
            (
                r"slow down|cool(?:ing)?[ -]?down|request burst|resources? (?:has been |have been |is "
                r"|are )?exhausted"
            ),
            r"concurren\w+ (?:\w+ )?(?:limit|requests?|connections?)",
            r"limit reached for|sent too many",
        ),
    ),
    (
        Verdict("permission"),
        (
            (
                r"(?:access|account|organi[sz]ation|team|project|workspace)"
                r"(?: \S+){0,3} (?:terminated|deactivated|disabled|suspended|banned|blocked|locked)"
                r"|(?:deactivated|suspended|banned|blocked) (?:account|organi[sz]ation|team|project|"
                r"workspace|user)"
            ),
        ),
    ),
    (
        Verdict("content_filter"),
        (
            r"content[ -](?:management|filter\w*|moderation|safety|policy|policies|guidelines)",
            r"usage (?:policy|policies|guidelines)|responsible ai|prohibited content",
            r"safety (?:system|settings?|filters?|measures?|reasons?|guidelines?|checks?|polic\w+)",
            (
                r"(?:was|were|been|is|being|got|get|inputs?|outputs?|prompt|message) (?:\w+ ){0,2}flagged"
                r"|flagged (?:as|by|for|this|your)"
            ),
            (
                r"moderation|nsfw|guardrails? (?:\w+ ){0,5}(?:intervened|blocked|triggered|failed)|"
                r"recitation|jailbreak"
            ),
            (
                r"(?:inappropriate|sensitive|harmful|unsafe|explicit|offensive|disallowed) "
                r"(?:content|information|words?|text|material)"
                r"|(?:input|output|content|prompt|text) (?:\w+ )?(?:sensitive|inappropriate|unsafe|harmful)"
            ),
            r"blocked content|content exists risk|considered high risk|high risk content",
            (
                r"blocked (?:by|due to|for|because of) (?:\S+ ){0,3}"
                r"(?:safety|policy|content|filters?|moderation|prohibited|harm\w*|guardrail)"
            ),
            r"violat\w+ (?:\S+ ){0,5}(?:polic(?:y|ies)|guidelines?|terms)",
            r"(?:model|assistant|provider) (?:has )?refus(?:ed|al)|refused to (?:answer|respond)",
        ),
    ),
    (
        Verdict("truncated", transient=True, billed="partly"),
        (
            (
                r"(?:stream|response|connection|body|transfer|output)(?: \S+){0,3} "
                r"(?:ended|closed|terminated|interrupted|disconnected|stopped|aborted|broken|dropped|cut)"
                r"(?: \S+){0,3} (?:before|without|prematurely|unexpectedly|mid)"
                r"(?! (?:\S+ ){0,4}(?:response|headers)(?! (?:was |is )?(?:complete|finish)))"
            ),
            r"ended (?:prematurely|before|without)|premature(?:ly)? (?:close[d]?|end\w*|eof)",
            r"stream (?:was |has been |got )?(?:closed|aborted|cut|broken|reset)|stream read error",
            r"without sending complete|incomplete (?:chunked )?(?:read|generation|stream)",
            r"unexpected (?:eof|end of (?:stream|file|response))|stream (?:was |is )?interrupted",
            r"without (?:receiving )?(?:a |any |the )?(?:finish reason|terminal|stop reason|done)",
        ),
    ),
    (
        Verdict("truncated", transient=False, billed="yes"),
        (
            (
                r"length limit (?:was )?reached|output (?:token )?(?:limit|maximum|length)(?: \S+){0,3}"
                r" (?:reached|exceeded|hit)"
            ),
            r"max(?:imum)?(?: \w+)? tokens (?:\S+ ){0,3}(?:reached|hit)|max tokens or model output limit",
            (
                r"(?:response|output|answer|completion) (?:has )?exceeded (?:the )?(?:\S+ ){0,2}"
                r"(?:output )?tokens? (?:limit|maximum)"
            ),
            r"token limit(?: \(.{1,30}\))? exceeded (?:before|while)",
            (
                r"(?:response|output|answer|completion|reply|text|content) (?:was |is |has been |got )?"
                r"(?:truncated|cut off|cut short)"
            ),
            (
                r"unterminated string|unexpected end of data|eof while parsing(?! a value at line 1 column 0)"
                r"|input data was truncated"
            ),
        ),
    ),
    (
        Verdict("invalid_request"),
        (
            (
                r"max(?:imum)? (?:new |output |completion )?tokens (?:\S+ ){0,3}(?:exceeds?|too large|greater"
                r"|less|higher|at least|between)(?!.{0,120}context)|invalid max tokens"
            ),
            r"maximum allowed number of output tokens|supports at most \S+ (?:completion|output) tokens",
        ),
    ),
    (
        Verdict("context_length"),
        (
            (
                r"exceed\w*(?: \S+){0,6} (?:context|(?:input|prompt|number of|max(?:imum)?|allowed) "
                r"(?:\S+ )?tokens?|token (?:limit|count)|tokens allowed"
                r"|max(?:imum)? (?:\w+ )?len\w*|model limit)"
            ),
            (
                r"(?:inputs?|prompt|messages|conversation|sequence|document|history|text)"
                r"(?: \S+){0,8}? (?:too long|too large for(?: the| this)? model|longer than|exceed\w*)"
            ),
            r"(?:inputs?|prompt|messages?|conversation|text)(?: \w+)? (?:is|are|was) too (?:long|big)",
            r"tokens? limit (?:\w+ ){0,2}(?:exceeded|reached)|(?:count|length) (?:\S+ )?exceeds the limit",
            r"(?:lower|reduce|decrease) the (?:\w+ )?number of tokens|context length of (?:only )?\d+",
            r"tokens per (?:submitted |single )?(?:batch|request|input)|context (?:\w+ )?overflow\w*",
            r"context (?:window|length|size) is (?:only )?\S+ tokens|greater than the context",
            r"string too long|context (?:window|length|size|limit)(?: \S+){0,4} (?:exceed\w*|full)",
            (
                r"max(?:imum)? (?:\w+ )?(?:context|prompt|input|sequence|model) "
                r"(?:length|size|window|tokens)(?: (?:is|of|for|was|allowed)|\Z)"
            ),
            r"model's (?:max\w* )?context (?:length|window|limit|size)",
            r"reduce the length of|a shorter (?:prompt|input|message)|shorten (?:your|the)",
            r"too many (?:input |prompt |total )?tokens|only supports up to \S+",
            r"inputs? (?:tokens )?(?:\+ max new tokens )?must (?:be <=?|have less than) ?\S+",
            r"range of input length|expected max ?length|max size: \S+ tokens",
            r"larger than the (?:max\w* |model's )?(?:context|sequence)|cannot exceed \S+ tokens?",
        ),
    ),
    (
        Verdict("auth"),
        (
            (
                r"(?:invalid|incorrect|wrong|missing|bad|expired|malformed|revoked|no|unknown|empty)"
                r"(?: \S+){0,3} (?:x-)?(?:api|access|subscription|secret|security|auth\w*|bearer|oauth|jwt)"
                r"[ -]?(?:key|token|credentials?|header)s?"
            ),
            r"(?:invalid|missing|incorrect|provide an) (?:x-)?api[ -]?key",
            (
                r"(?:api|access|subscription|security|auth\w*|oauth|bearer|id)[ -]?(?:key|token)s?"
                r"(?: \S+){0,7} (?:(?:in)?valid|expired|missing|incorrect|required|revoked|leaked|disabled"
                r"|not (?:be )?(?:found|set|provided|configured)|malformed|must be set)"
            ),
            r"unauthori[sz]ed|unauthenticated|authentication (?:\w+ )?(?:fail\w*|errors?|required)",
            r"not authenticated|(?:resolve|pass a valid) authentication|authorization (?:failed|required)",
            r"(?:invalid|bad|missing|wrong|no) (?:auth )?(?:credentials?|signature|password|username)",
            (
                r"credentials? (?:\w+ )?(?:not found|expired|missing|invalid)|locate credentials"
                r"|partial credentials"
            ),
            (
                r"(?:key|token|session|credentials?) (?:has |have |is |was )?(?:been )?"
                r"(?:expired|revoked|blocked|deactivated|disabled|deleted)"
                r"|(?:blocked|revoked|expired|disabled|deactivated|deleted) (?:\w+ )?(?:key|token|session)"
            ),
            (
                r"(?:could not|cannot|can't|failed to|unable to) (?:authenticate|log ?in|sign in"
                r"|(?:validate|verify|refresh|load) (?:\w+ ){0,3}(?:credentials?|token|key))|token "
                r"refresh failed"
            ),
            r"invalid (?:grant|client|authentication|authorization)|unauthorized client|not logged in",
            r"re-?authenticat\w*|signature (?:\S+ ){0,3}does not match|login (?:fail\w*|required)",
            r"set the \S+(?: \S+){0,2} api key|api key (?:\S+ )?(?:option|environment variable)",
        ),
    ),
    (
        Verdict("not_found"),
        (
            (
                r"(?:model|deployment|engine|resource|endpoint|function|version|page|url|route|path|project"
                r"|entity|file|publisher)s?(?: \S+){0,10} (?:not found|not be found|not exist"
                r"|does ?n't exist|not available|decommissioned|retired|deprecated|shut ?down"
                r"|no longer (?:\w+ )?(?:available|supported|offered))"
            ),
            (
                r"(?:unknown|invalid|unrecognized|unsupported|no such|nonexistent) "
                r"(?:model|engine|deployment|endpoint)(?! (?:output|response|repl\w*|settings?|param\w*"
                r"|config\w*|input|version|behaviou?r|request))"
            ),
            (
                r"not (?:a valid|an available|a known|a supported) model|model (?:identifier|id|name) is "
                r"(?:invalid|unknown|incorrect)|model not exist"
            ),
            (
                r"(?:supported|available|permitted|valid) models (?:are|can)|list of (?:\w+ )?models"
                r"|call (?:model service\.)?list ?models"
            ),
            r"no (?:allowed )?(?:endpoints?|providers?) (?:are )?(?:found|available)|unable to access model",
            (
                r"no (?:\w+ )?(?:model|deployment|engine|endpoint|route|resource)s? (?:\w+ "
                r")?(?:match\w*|exists?)"
            ),
            r"model(?: \S+)? (?:is|are) not (?:supported|available|accessible|deployed)",
            r"try pulling it|end of (?:its )?life|(?:entity|page) (?:was )?not found",
        ),
    ),
    (
        Verdict("permission"),
        (
            r"(?:access|permission|request)(?: \S+){0,5} denied|denied access|forbidden",
            (
                r"(?:do(?:es)? not|don't|doesn't|without|lacks?|insufficient|need|required?) (?:have )?"
                r"(?:\S+ ){0,3}(?:access|permissions?|privileges?|scopes?)"
            ),
            r"not (?:authorized|allowed|permitted|entitled|whitelisted|enabled) (?:to|for)",
            r"missing (?:\w+ )?(?:scopes?|permissions?|roles?|privileges?)|permission error",
            r"(?:location|country|region|territory)(?: \S+){0,4} (?:is )?not (?:supported|available|allowed)",
            r"not (?:available|supported) in (?:your|this) (?:country|region|location|area)",
            r"unsupported (?:countr\w+|regions?|territor\w+|locations?)|access(?: \S+){0,5} not allowed",
            r"gated repo|is restricted|must be verified|has not been used in project|access is disabled",
            r"operation not allowed|requires a (?:pro|paid|higher|business|enterprise)",
        ),
    ),
    (
        Verdict("invalid_request"),
        (
            (
                r"(?:unsupported|unknown|unrecognized|unexpected|unused|extra) (?:\S+ ){0,2}"
                r"(?:arguments?|parameters?|fields?|keyword|roles?)|(?:do(?:es)? not|don't|doesn't) "
                r"support\w*"
                r"|invalid (?:\w+ )?(?:header|argument|url|schema|parameter)s?"
            ),
            (
                r"(?:must|should|ha(?:s|ve) to|needs? to) (?:\w+ )?(?:be|have|contain|start|end|not|include"
                r"|alternate|specify|provide|match|follow)"
            ),
            (
                r"(?:images?|files?|audio|video|pdf|attachments?)(?: \S+){0,4} (?:exceeds?|too "
                r"(?:large|big|many"
                r"|long)|unsupported|invalid|corrupt\w*)"
            ),
            r"requires? (?:\S+ ){0,3}(?:flag|option|argument|parameter|setting|header)",
            r"(?:parameter|property|argument) (?:\S+ )?(?:is )?(?:required|missing)",
            r"(?:required|mandatory) (?:field|parameter|property|argument)",
        ),
    ),
    (
        Verdict("timeout"),
        (
            r"tim(?:ed|ing)[ -]out|deadline (?:was |has )?(?:exceeded|expired)|etimedout|esockettimedout",
            (
                r"(?:read|connect|connection|request|gateway|operation|socket|response|write|pool|headers?"
                r"|body|upstream|client|server|network|inference|invocation) time-?out"
            ),
            r"time-?out (?:error|exception|occurred|exceeded|expired|reached|on|while|after|waiting|of)",
            (
                r"(?:took|taking) too long|(?:before|within) (?:the )?(?:\w+ )?deadline|i/o timeout|"
                r"time limit (?:was )?(?:exceeded|reached)|econnaborted"
            ),
        ),
    ),
    (
        Verdict("connection", transient=False, billed="no"),
        (
            (
                r"cert(?:ificate)?s? (?:\w+ ){0,3}(?:verif\w+|failed|expired|untrusted|not trusted|invalid"
                r"|unknown|revoked|altname\w*|mismatch|not yet valid)|verify (?:\w+ ){0,3}signature|"
                r"self[ -]signed|unable to (?:get|verify) (?:\S+ ){0,3}certificate"
            ),
            (
                r"hostname mismatch|wrong version number|certificate has expired|unknown ca"
                r"|unable to find valid certification path|x509"
            ),
        ),
    ),
    (
        Verdict("connection", billed="no"),
        (
            r"connection (?:was )?refused|econnrefused|enotfound|eai again|ehostunreach|enetunreach",
            r"getaddrinfo|name or service not known|nodename nor servname|name resolution|no such host",
            r"lookup address|no address associated|connect to proxy|tunnel connection failed",
            r"(?:resolve|find) (?:the )?(?:host|hostname|dns)|dns (?:lookup|resolution|error|failure)",
            r"establish a (?:new )?connection|network (?:is )?unreachable|no route to host",
            r"(?:unable to|could not|can ?not|can't|failed to|couldn't) connect|all connection attempts",
            r"max retries exceeded with url|tls handshake|ssl handshake|network is down",
        ),
    ),
    (
        Verdict("connection"),
        (
            (
                r"connection (?:was |has been |is |got )?(?:\w+ )?(?:reset|aborted|closed|lost|dropped|broken"
                r"|failed|error|terminated|interrupted)|econnreset|epipe|broken pipe|socket hang up"
            ),
            r"fetch failed|failed to fetch|network (?:connection )?(?:error|lost|failure|changed)",
            r"(?:remote end|other side|peer|server) (?:has )?closed",
            r"server disconnected|disconnect(?:ed)?/reset|error communicating|remote protocol error",
            r"connection (?:pool|attempt)|dial tcp|error sending request|api connection|ssl: ?\S+",
        ),
    ),
    (
        Verdict("empty_output"),
        (
            (
                r"(?:empty|blank) (?:\w+ )?(?:response|output|completion|content|reply|message|answer|text"
                r"|string|choices|result)"
            ),
            (
                r"(?:response|output|completion|content|reply|message|answer|text|choices)"
                r"(?: \w+)? (?:is|was|were|are|came back) (?:empty|none|null|blank)"
            ),
            r"(?:response|output|completion|reply) empty",
            (
                r"no (?:response body|response text|candidates?|choices?|outputs?|text|completion|content"
                r"|message|answer)(?: parts?)? (?:was |were |is |are )?(?:returned|generated|received|found"
                r"|produced|provided|in (?:the )?(?:response|reply|answer|output))"
            ),
            r"(?:has|have|contains?|with) no (?:parts?|content|choices|candidates|text|output)",
            r"without (?:any )?(?:content|text|output)|returned (?:an empty|nothing)",
            r"eof while parsing a value at line 1 column 0",
        ),
    ),
    (
        Verdict("validation_failed"),
        (
            (
                r"(?:result|output|response|schema|answer) validation|retries (?:\S+ ){0,2}for (?:\w+ )?"
                r"validation|please call one of the functions|exceeded max(?:imum)? retries"
            ),
            r"\d+ validation errors? for|failed (?:schema |the )?validat\w+|not match the (?:\w+ )?schema",
        ),
    ),
    (
        Verdict("invalid_request"),
        (
            r"json (?:body|payload) of your request|(?:pars\w+|deseriali\w+) the (?:json |request )?body",
            (
                r"malformed (?:input )?request|reformat your input|request (?:\S+ ){0,5}(?:invalid|"
                r"malformed) json"
            ),
            r"(?:request body|request payload|body) (?:is |was )?not valid json|invalid request body",
        ),
    ),
    (
        Verdict("malformed_output"),
        (
            r"(?:invalid|malformed|bad|broken|unparsable|incomplete) json|not (?:a )?valid json",
            (
                r"(?:failed|unable|error|could not|couldn't|can ?not) (?:to |while |when )?"
                r"(?:pars\w+|decod\w+|deseriali\w+)"
            ),
            r"expected json|unexpected end of json|json (?:decode|parse|parsing|syntax)(?: \w+)?",
            r"expecting (?:value|property name|\S+ delimiter)|extra data: line|unexpected token",
            r"invalid control character",
            r"(?:invalid|malformed|unknown|hallucinated) (?:tool|function)(?: \w+)?(?: call| name)?",
            r"error parsing tool call|failed to (?:call a function|generate json)|failed generation",
            r"tool call validation failed|(?:produced|returned|generated) (?:an? )?invalid",
            r"json is malformed|no json (?:object )?(?:found|could)|not contain (?:any )?(?:valid )?json",
        ),
    ),
    (
        Verdict("server_error"),
        (
            r"internal (?:\w+ )?error|server (?:had|encountered|experienced) an? (?:\w+ )?error",
            r"bad gateway|error (?:occurred )?(?:while|during) (?:process|stream|generat|handl)\w*",
            r"unexpected (?:system |server )?error|something went wrong",
            (
                r"unavailable|(?:currently|temporarily) (?:not available|down|offline|interrupted)"
                r"|(?:isn't|not) currently available"
            ),
            (
                r"server is down|upstream (?:error|failure|connect\w*|server|service)|no healthy "
                r"upstream|engine(?: \w+)? (?:is )?(?:dead"
                r"|encountered|not running|loop)|background loop has (?:errored|stopped)"
            ),
            (
                r"(?:runner|process|worker|server) (?:\w+ ){0,2}(?:terminated|crashed|exited|died|stopped)"
                r"|no longer running|start a llama runner|prediction interrupted"
                r"|server error|provider returned error|under maintenance"
            ),
            r"try again (?:later|soon|shortly|in an? \w+)|(?:try|retry) (?:your|the) request",
        ),
    ),
    (
        Verdict("invalid_request"),
        (
            (
                r"(?:invalid|unsupported|unknown|unrecognized|unexpected|missing|extra) (?:\S+ ){0,3}"
                r"(?:request|arguments?|parameters?|values?|types?|schema|inputs?|formats?|url|roles?|"
                r"fields?|keyword)"
            ),
            r"(?:do(?:es)? not|don't|doesn't|not) support\w*|not supported|bad request|not permitted",
            r"(?:required|mandatory) (?:field|parameter|property|argument)|(?:is|field) required",
            r"expected (?:\S+ ){1,10}(?:but |instead )?(?:got|received|found|given|was)",
            (
                r"(?:is|are|was|were) not (?:\w+ )?(?:valid|allowed|eligible|defined|recognized|"
                r"accepted|correct)"
            ),
            r"requires? (?:\S+ ){0,3}to be",
            r"(?:does|do) not (?:work|match|apply)|illegal|no scheme",
            r"cannot be|can't be|non-?empty|unprocessable|does not match any|exceeds? \d+ [km]i?b",
        ),
    ),
)
