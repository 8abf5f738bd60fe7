using Fleet.Contracts.Hits;

namespace Fleet.HostAgent.Observe;

/// <summary>
/// One access seen by two sources is one hit. A page's accesses that the kernel's tracepoints showed and those for which its VMM says it injected a
/// machine check are the same ones: the count is the larger of the two. An access that both saw carries the tracepoint's evidence, which knows
/// address and kind, and the VMM's outcome. One that only the tracepoint saw waits for the VMM's word for a moment, then it is a hit by itself; the
/// VMM's word for it, should it still come, adds nothing. Neither does the tracepoint's line for one that the VMM spoke of a moment before.
/// </summary>
/// <typeparam name="TVmm">Names a VMM process.</typeparam>
public sealed class HitMerge<TVmm>(TimeProvider time)
    where TVmm : notnull
{
    /// <summary>How long the VMM's word may take: its line is queued for 250 ms, and a busy host is slow (one of 300 took over a second under emulation).</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly Lock _lock = new();
    private readonly Dictionary<(TVmm Vmm, long Frame), PageHits> _pages = [];

    /// <summary>The tracepoint showed an access.</summary>
    public void Saw(TVmm vmm, long frame, string access, int? vcpu, string evidence)
    {
        lock (_lock)
        {
            if (!_pages.TryGetValue((vmm, frame), out var page))
            {
                _pages[(vmm, frame)] = page = new PageHits();
            }

            if (!page.IsExplained(time))
            {
                page.Add((access, vcpu, evidence), time.GetUtcNow(), time.GetTimestamp());
            }
        }
    }

    /// <summary>The VMM says that it injected machine checks: what of them is still to be reported.</summary>
    public IReadOnlyList<ObservedAccess> Explain(TVmm vmm, ObservedAccess said)
    {
        lock (_lock)
        {
            if (!_pages.TryGetValue((vmm, said.Frame), out var page))
            {
                _pages[(vmm, said.Frame)] = page = new PageHits();
            }

            return page.Explain(said, time.GetTimestamp());
        }
    }

    /// <summary>Takes what the VMM did not speak of in time, or all of it.</summary>
    public IReadOnlyList<(TVmm Vmm, ObservedAccess Access)> TakeUnexplained(bool all = false)
    {
        lock (_lock)
        {
            return
            [
                .. _pages.Where(page => all || time.GetElapsedTime(page.Value.Since) >= Patience)
                    .SelectMany(page => page.Value.TakeAll().Select(part => (page.Key.Vmm, part.ToAccess(page.Key.Frame, HitOutcomes.Unknown, part.Count)))),
            ];
        }
    }

    /// <summary>They could not be stored: they are taken again the next time.</summary>
    public void PutBack(TVmm vmm, ObservedAccess access)
    {
        lock (_lock)
        {
            if (_pages.TryGetValue((vmm, access.Frame), out var page))
            {
                page.PutBack(access);
            }
        }
    }

    /// <summary>The process is gone.</summary>
    /// <returns>Whether nothing of it is left to be stored; else it is to be asked again.</returns>
    public bool Forget(TVmm vmm)
    {
        lock (_lock)
        {
            var keys = _pages.Keys.Where(key => key.Vmm.Equals(vmm)).ToList();
            foreach (var key in keys.Where(key => _pages[key].IsEmpty))
            {
                _pages.Remove(key);
            }

            return keys.TrueForAll(key => !_pages.ContainsKey(key));
        }
    }

    private sealed class PageHits
    {
        private readonly List<Part> _parts = [];

        // Reported on the tracepoint's word alone.
        private long _credit;

        // Reported on the VMM's word alone, and when it spoke last: what the tracepoint showed of it may not be read yet. Lost lines never come.
        private (long Count, long At) _debit;

        public long Since { get; private set; }

        public bool IsEmpty => _parts.Count == 0;

        public void Add((string Access, int? Vcpu, string Evidence) kind, DateTimeOffset now, long timestamp)
        {
            Since = IsEmpty ? timestamp : Since;
            var index = _parts.FindIndex(part => part.Kind == kind);
            if (index < 0)
            {
                _parts.Add(new Part(kind, 1, now, now));
            }
            else
            {
                _parts[index] = _parts[index] with { Count = _parts[index].Count + 1, LastAt = now };
            }
        }

        /// <summary>Whether the VMM has spoken of this access already.</summary>
        public bool IsExplained(TimeProvider time)
        {
            if (_debit.Count == 0 || time.GetElapsedTime(_debit.At) >= Patience)
            {
                _debit.Count = 0;
                return false;
            }

            _debit.Count--;
            return true;
        }

        public IReadOnlyList<ObservedAccess> Explain(ObservedAccess said, long timestamp)
        {
            var left = said.Count - Math.Min(said.Count, _credit);
            _credit -= said.Count - left;
            var explained = new List<ObservedAccess>();
            foreach (var part in _parts.OrderByDescending(part => part.Kind.Vcpu == said.Vcpu).ToList())
            {
                var both = Math.Min(left, part.Count);
                if (both == 0)
                {
                    break;
                }

                left -= both;
                explained.Add(part.ToAccess(said.Frame, said.Outcome, both) with { Vcpu = part.Kind.Vcpu ?? said.Vcpu });
                _parts.Remove(part);
                if (part.Count > both)
                {
                    _parts.Add(part with { Count = part.Count - both });
                }
            }

            // It speaks: what is left came since, and its word for that is still due.
            Since = timestamp;
            if (left > 0)
            {
                _debit = (_debit.Count + left, timestamp);
                explained.Add(said with { Count = left });
            }

            return explained;
        }

        public List<Part> TakeAll()
        {
            List<Part> taken = [.. _parts];
            _parts.Clear();
            _credit += taken.Sum(part => part.Count);
            return taken;
        }

        public void PutBack(ObservedAccess access)
        {
            _credit -= Math.Min(_credit, access.Count);
            _parts.Add(new Part((access.Access, access.Vcpu, access.Evidence), access.Count, access.FirstAt, access.LastAt));
        }
    }

    private sealed record Part((string Access, int? Vcpu, string Evidence) Kind, long Count, DateTimeOffset FirstAt, DateTimeOffset LastAt)
    {
        public ObservedAccess ToAccess(long frame, string outcome, long count) => new(frame, Kind.Access, Kind.Vcpu, Kind.Evidence, outcome, count, FirstAt, LastAt);
    }
}
