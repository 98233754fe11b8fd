"""Chinese phrases for a failure, kind by kind: many providers answer in Chinese alone (floor 1).

They are tried in this order on a text that has any, wherever they stand: Chinese has no spaces between
its words. ``…`` stands for a few characters more within one clause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from sifaka.faults.table import Verdict

__all__ = ["chinese_verdicts", "speaks_of_money"]

_WITHIN_CLAUSE = "[^\u3002\uff0c]{0,10}"

# Balance too low, arrears, please top up.
_MONEY = ("余额…(?:不足|已用)", "欠费", "请(?:及时)?充值")

_FAMILIES: tuple[tuple[Verdict, tuple[str, ...]], ...] = (
    (Verdict("quota_exhausted"), _MONEY),
    # allowance or package used up, limit of use, per day or month
    (
        Verdict("quota_exhausted"),
        (
            "(?:额度|配额|资源包|套餐|限额|用量)…(?:不足|已用|用完|用尽|耗尽|超出|超限)",
            "使用上限|(?:每日|今日|当日|每月|本月|当月)…(?:上限|限制|额度)",
        ),
    ),
    # sensitive, against the rules, unsafe, risky, review of contents
    (
        Verdict("content_filter"),
        ("敏感|违规内容|内容违规|违禁|不安全|风险内容", "内容(?:安全|审[查核])|审核未通过"),
    ),
    # too many visits, busy, overloaded, crowded, queue full
    (Verdict("overloaded"), ("访问量过大|繁忙|过载|负载过高|拥挤", "排队…(?:过多|已满)")),
    # rate, frequency, too frequent, too many requests, concurrency
    (
        Verdict("rate_limit"),
        ("速率|频率|频繁|限流", "请求(?:数|次数)?(?:过多|太多|超限)", "并发…[超限过]"),
    ),
    # too long, context, tokens beyond the limit
    (
        Verdict("context_length"),
        (
            "超长|过长|上下文",
            "(?:长度|字数|token数?)…(?:超过|超出|超限|大于)",
            "(?:超过|超出)…(?:长度|token)",
        ),
    ),
    # key, token, identity, signature: wrong, void, expired, failed, missing
    (
        Verdict("auth"),
        (
            "(?:密钥|秘钥|令牌|api ?key|token|签名|凭证|身份)…(?:错误|无效|失效|过期|失败|不正确|缺失)",
            "(?:密钥|秘钥|令牌|api ?key|token)…(?:为空|未)",
            "(?:无效|错误|非法)的?(?:密钥|令牌|api ?key|token)",
            "鉴权|认证失败|验证失败|未登录|未授权|登录(?:已)?(?:失效|过期)",
        ),
    ),
    # no right, not opened for this account, forbidden, suspended
    (
        Verdict("permission"),
        ("权限|无权|未开通|未开放|禁止访问|拒绝访问", "(?:账[号户]|用户)…(?:封禁|禁用|冻结|停用)"),
    ),
    # a model, an interface, a resource that is not there or was withdrawn
    (
        Verdict("not_found"),
        ("(?:模型|接口|资源|地址|应用|部署|端点)…(?:不存在|未找到|不可用|已下线|找不到)", "找不到…模型"),
    ),
    (Verdict("timeout"), ("超时",)),
    # network or connection: failed, wrong, broken, refused, unreachable
    (
        Verdict("connection"),
        ("(?:网络|连接)…(?:失败|错误|异常|中断|断开|被拒|不可达)", "无法连接"),
    ),
    # parameter, format, not supported, illegal, must not be empty, required
    (
        Verdict("invalid_request"),
        ("参数|不支持|非法|不能为空|必[须填]", "格式…(?:错误|不正确|有误)", "请求(?:错误|无效|体)"),
    ),
    # an error of the system, the inside, the service; please try again later; maintenance
    (
        Verdict("server_error"),
        ("(?:系统|内部|服务)…(?:错误|异常|故障|不可用)", "稍后(?:再试|重试)|维护"),
    ),
)


def chinese_verdicts(text: str) -> Iterator[Verdict]:
    """What the Chinese phrases of a plain text say, the most telling first."""
    if _any_chinese().search(text):
        yield from (verdict for verdict, phrases in _FAMILIES if _compiled(phrases).search(text))


def speaks_of_money(text: str) -> bool:
    """Whether a text says in Chinese that the account has no money left."""
    return bool(_any_chinese().search(text)) and bool(_compiled(_MONEY).search(text))


@cache
def _any_chinese() -> re.Pattern[str]:
    return re.compile("[\u4e00-\u9fff]")


@cache
def _compiled(phrases: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(phrases).replace("…", _WITHIN_CLAUSE))
