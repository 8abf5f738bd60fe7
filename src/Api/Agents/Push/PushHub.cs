using System.Collections.Concurrent;

namespace Fleet.Api.Agents.Push;

/// <summary>Who listens to what: for each host the streams that are open, in practice one.</summary>
public sealed class PushHub
{
    private readonly ConcurrentDictionary<string, Subscriber[]> _subscribers = new(StringComparer.Ordinal);
    private long _revision;

    /// <summary>Everything up to this revision has been marked dirty where it concerns a subscriber.</summary>
    public long Revision => Volatile.Read(ref _revision);

    public Subscriber Subscribe(string host, long incarnation)
    {
        var subscriber = new Subscriber(host, incarnation);
        _subscribers.AddOrUpdate(host, _ => [subscriber], (_, others) => [.. others, subscriber]);
        return subscriber;
    }

    public void Unsubscribe(Subscriber subscriber)
    {
        subscriber.End("closed");
        _subscribers.AddOrUpdate(subscriber.Host, _ => [], (_, all) => [.. all.Where(other => other != subscriber)]);
    }

    /// <summary>Ends every stream of the host but the given one: those of superseded agents, and an agent's own former one.</summary>
    public void EndOthers(Subscriber kept) => End(kept.Host, other => other != kept && other.Incarnation <= kept.Incarnation);

    public void EndOlder(string host, long incarnation) => End(host, other => other.Incarnation < incarnation);

    public int Count => _subscribers.Sum(host => host.Value.Length);

    /// <summary>For a new store epoch (every agent must claim again), and when the server stops.</summary>
    public void EndAll(string why)
    {
        foreach (var subscriber in _subscribers.Values.SelectMany(all => all))
        {
            subscriber.End(why);
        }
    }

    public void MarkDirty(string host, string vm)
    {
        foreach (var subscriber in _subscribers.GetValueOrDefault(host) ?? [])
        {
            subscriber.MarkDirty(vm);
        }
    }

    /// <summary>Only after everything of the revision was marked.</summary>
    public void Advance(long revision) => Volatile.Write(ref _revision, revision);

    private void End(string host, Func<Subscriber, bool> which)
    {
        foreach (var subscriber in (_subscribers.GetValueOrDefault(host) ?? []).Where(which))
        {
            subscriber.End("superseded");
        }
    }
}
