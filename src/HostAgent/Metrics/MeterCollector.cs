using System.Diagnostics.Metrics;

namespace Fleet.HostAgent.Metrics;

/// <summary>
/// Adds up what the agent's instruments measure, and writes it in the text format of Prometheus (version 0.0.4). It takes every meter whose name
/// is or begins with <see cref="AgentMeter.Name"/>, whoever made it, but those that are another agent's in this process.
/// </summary>
internal sealed class MeterCollector : IDisposable
{
    private readonly MeterListener _listener = new();
    // Of what was measured. Nobody waits for anything while holding it: measurements come from threads that hold locks of their own.
    private readonly Lock _lock = new();
    // One look at a time; taken before the other.
    private readonly Lock _looking = new();
    private readonly SortedDictionary<string, MetricFamily> _families = new(StringComparer.Ordinal);

    /// <param name="scope">Of this agent's own meters.</param>
    public MeterCollector(object scope)
    {
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Name.StartsWith(AgentMeter.Name, StringComparison.Ordinal) && (instrument.Meter.Scope is null || instrument.Meter.Scope == scope))
            {
                listener.EnableMeasurementEvents(instrument, Add(instrument));
            }
        };
        _listener.SetMeasurementEventCallback<int>((_, value, tags, state) => Take(value, tags, state));
        _listener.SetMeasurementEventCallback<long>((_, value, tags, state) => Take(value, tags, state));
        _listener.SetMeasurementEventCallback<double>((_, value, tags, state) => Take(value, tags, state));
        _listener.Start();
    }

    public string Write()
    {
        lock (_looking)
        {
            lock (_lock)
            {
                foreach (var family in _families.Values)
                {
                    family.Forget();
                }
            }

            // What is asked may wait for somebody who counts just now, as the spool's size does for an append.
            _listener.RecordObservableInstruments();
            lock (_lock)
            {
                return string.Concat(_families.Values.Select(family => family.Write()));
            }
        }
    }

    public void Dispose() => _listener.Dispose();

    private MetricFamily Add(Instrument instrument)
    {
        lock (_lock)
        {
            var family = new MetricFamily(instrument);
            _families[family.Name] = family;
            return family;
        }
    }

    private void Take(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags, object? state)
    {
        lock (_lock)
        {
            (state as MetricFamily)?.Take(value, tags);
        }
    }
}
