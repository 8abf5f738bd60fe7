using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Fleet.Api.Problems;
using Fleet.Api.Security.Limits;
using Fleet.Data;

namespace Fleet.Api.Security;

/// <summary>
/// Tells of refusals that matter: the first of each kind at once, the rest as a count a minute. They are never written to the
/// store, and there is a bound to how many kinds are told apart: who is refused can make neither the log nor the database grow.
/// </summary>
public sealed class Refusals : BackgroundService
{
    internal const int MostKinds = 1000;
    private static readonly Counter<long> Refused = FleetMeter.Meter.CreateCounter<long>("requests.refused", null, "Requests refused for want of a right, by problem code.");
    private static readonly TimeSpan Period = TimeSpan.FromMinutes(1);
    private static readonly Kind Others = new("others", string.Empty, string.Empty);

    // What is a matter of rights or of a claim to an override, as against a request that was merely wrong.
    private static readonly HashSet<string> Audited =
    [
        ProblemTypes.Forbidden.Code, ProblemTypes.WrongHost.Code, ProblemTypes.FenceRefused.Code, ProblemTypes.HostOnline.Code,
        ProblemTypes.JoinTokenInvalid.Code, ProblemTypes.JoinTokenUsed.Code, ProblemTypes.CredentialReplaced.Code, ProblemTypes.CredentialExists.Code,
        ProblemTypes.LastAdmin.Code,
    ];

    private readonly ConcurrentDictionary<Kind, int> _seen = [];
    private readonly TimeProvider _time;
    private readonly ILogger<Refusals> _logger;

    public Refusals(TimeProvider time, ILogger<Refusals> logger) => (_time, _logger) = (time, logger);

    /// <summary>For a problem that is a result of an endpoint: counted and told only if it is of the kind that matters.</summary>
    public void AddIfAudited(HttpContext http, string code)
    {
        if (Audited.Contains(code))
        {
            Add(http, code);
        }
    }

    public void Add(HttpContext http, string code)
    {
        Refused.Add(1, new KeyValuePair<string, object?>("code", code));
        if (code == ProblemTypes.Forbidden.Code && HttpMethods.IsGet(http.Request.Method))
        {
            return;
        }

        // No more of the request than its route: paths, queries, headers and bodies are the caller's words.
        var known = http.User.Identity is { IsAuthenticated: true };
        var route = known ? (http.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText ?? "none" : "any";
        Tell(new Kind(code, known ? http.User.Actor() : http.AddressKey(), $"{(known ? http.Request.Method : "any")} {route}"));
    }

    /// <summary>The identity provider could not be asked, so that nobody's token of it can be checked.</summary>
    public void IdentityUnavailable(Exception exception) => Tell(new Kind("identity-unavailable", exception.GetType().Name, "Fleet:Jwt:Authority"));

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, _time);
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            Flush();
        }
    }

    /// <summary>Tells how many more there were of each kind, and forgets them.</summary>
    internal void Flush()
    {
        foreach (var kind in _seen.Keys)
        {
            if (_seen.TryRemove(kind, out var count) && count > 1)
            {
                SecurityLog.RefusedMore(_logger, kind.Code, kind.Caller, kind.Route, count - 1);
            }
        }
    }

    private void Tell(Kind kind)
    {
        if (_seen.Count >= MostKinds && !_seen.ContainsKey(kind))
        {
            kind = Others;
        }

        if (_seen.AddOrUpdate(kind, 1, (_, count) => count + 1) == 1)
        {
            SecurityLog.Refused(_logger, kind.Code, kind.Caller, kind.Route);
        }
    }

    private sealed record Kind(string Code, string Caller, string Route);
}
