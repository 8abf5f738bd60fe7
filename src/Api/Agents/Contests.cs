using System.Collections.Concurrent;

namespace Fleet.Api.Agents;

public enum ClaimVerdict
{
    Admit,

    /// <summary>Refused: the host is contested, and this claim is not of the process that holds it.</summary>
    Refuse,

    /// <summary>As <see cref="Refuse"/>, and it is this claim that showed it.</summary>
    Began,
}

/// <summary>
/// Finds two agent processes that claim one host in turn, as after a copy of a host's state folder. An agent has the incarnation that a claim was answered
/// with on its disk before it uses it, and shows it with its next claim. So a claim that shows an older one than has been used here is of another
/// state folder, or of one that was put back from a copy: no crash of one agent, however often, looks like that. Once may be the latter; the second time
/// within <see cref="Window"/> the host is contested. Then claims of that kind are refused: the process that holds the host keeps it.
/// It ends when the host is enrolled anew, or when either side has been silent for <see cref="Silence"/>. In memory: a restart of the control plane forgets it, and finds it again.
/// </summary>
public sealed class Contests(TimeProvider time)
{
    public static readonly TimeSpan Window = TimeSpan.FromMinutes(10);
    public static readonly TimeSpan Silence = TimeSpan.FromMinutes(2);
    public const string Reason = "two agent processes claim it in turn";
    public const string EndedByEnrolment = "enrolled anew";
    public const string EndedBySilence = "one of the two fell silent";

    private readonly ConcurrentDictionary<string, Contest> _hosts = new(StringComparer.Ordinal);

    /// <summary>To be called for every heartbeat that was taken.</summary>
    public void Used(string host, long incarnation)
    {
        var contest = _hosts.GetOrAdd(host, static _ => new Contest());
        lock (contest)
        {
            contest.Used = Math.Max(contest.Used, incarnation);
            contest.HolderAt = time.GetUtcNow();
        }
    }

    /// <param name="lastIncarnation">As the claim shows it; null where its agent has none: it is never refused.</param>
    public ClaimVerdict Judge(string host, long? lastIncarnation)
    {
        var contest = _hosts.GetOrAdd(host, static _ => new Contest());
        lock (contest)
        {
            if (lastIncarnation is not { } last || last >= contest.Used)
            {
                return ClaimVerdict.Admit;
            }

            var now = time.GetUtcNow();
            contest.Others.RemoveAll(at => now - at >= Window);
            contest.Others.Add(now);
            if (contest.Since is not null)
            {
                return ClaimVerdict.Refuse;
            }

            if (contest.Others.Count < 2)
            {
                return ClaimVerdict.Admit;
            }

            contest.Since = now;
            return ClaimVerdict.Began;
        }
    }

    /// <summary>Why the host is contested; null when it is not.</summary>
    public string? ReasonOf(string host) => _hosts.TryGetValue(host, out var contest) && contest.Since is not null ? Reason : null;

    /// <summary>The host was enrolled anew: whoever did that knows which of the two is right.</summary>
    public void Enrolled(string host)
    {
        if (_hosts.TryGetValue(host, out var contest))
        {
            lock (contest)
            {
                contest.EndedBy = contest.Since is null ? null : EndedByEnrolment;
                contest.Others.Clear();
                contest.Since = null;
            }
        }
    }

    /// <summary>Contests that have ended and are not yet written down as such; see <see cref="Forget"/>.</summary>
    public IReadOnlyList<(string Host, string Why)> Ended()
    {
        var ended = new List<(string, string)>();
        foreach (var (host, contest) in _hosts)
        {
            lock (contest)
            {
                if (contest.Since is not null && IsOver(contest))
                {
                    contest.EndedBy = EndedBySilence;
                    contest.Others.Clear();
                    contest.Since = null;
                }

                if (contest.EndedBy is { } why)
                {
                    ended.Add((host, why));
                }
            }
        }

        return ended;
    }

    public void Forget(IReadOnlyList<(string Host, string Why)> ended)
    {
        foreach (var (host, _) in ended)
        {
            lock (_hosts[host])
            {
                _hosts[host].EndedBy = null;
            }
        }
    }

    private bool IsOver(Contest contest) =>
        time.GetUtcNow() - contest.HolderAt >= Silence || time.GetUtcNow() - contest.Others[^1] >= Silence;

    private sealed class Contest
    {
        /// <summary>Highest incarnation that a heartbeat was taken of.</summary>
        public long Used { get; set; }

        public DateTimeOffset HolderAt { get; set; }

        /// <summary>When claims of another state folder came.</summary>
        public List<DateTimeOffset> Others { get; } = [];

        public DateTimeOffset? Since { get; set; }

        public string? EndedBy { get; set; }
    }
}
