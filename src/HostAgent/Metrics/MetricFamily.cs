using System.Diagnostics.Metrics;
using System.Globalization;
using System.Text;

namespace Fleet.HostAgent.Metrics;

/// <summary>One instrument's series, by labels. Not safe for several threads.</summary>
internal sealed class MetricFamily
{
    private const string Prefix = "fleet_agent_";

    // Seconds; other histograms are not in use.
    private static readonly double[] Buckets = [0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

    private readonly SortedDictionary<string, Series> _series = new(StringComparer.Ordinal);
    private readonly string _type;
    private readonly string _help;
    private readonly bool _observable;

    public MetricFamily(Instrument instrument)
    {
        _type = instrument switch
        {
            Histogram<double> => "histogram",
            Counter<int> or Counter<long> or Counter<double> or ObservableCounter<int> or ObservableCounter<long> or ObservableCounter<double> => "counter",
            _ => "gauge",
        };
        _observable = instrument.IsObservable;
        _help = instrument.Description ?? string.Empty;
        var name = instrument.Name.Replace('.', '_');
        Name = (name.StartsWith(Prefix, StringComparison.Ordinal) ? name : Prefix + name) + (_type == "counter" ? "_total" : string.Empty);
    }

    public string Name { get; }

    public void Take(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var labels = Labels(tags);
        if (!_series.TryGetValue(labels, out var series))
        {
            _series[labels] = series = new Series(_type == "histogram" ? new long[Buckets.Length] : null);
        }

        series.Take(value, _observable);
    }

    /// <summary>An observed series lasts until the next look: what is gone then is not repeated.</summary>
    public void Forget()
    {
        if (_observable)
        {
            _series.Clear();
        }
    }

    public string Write()
    {
        var text = new StringBuilder().Append(CultureInfo.InvariantCulture, $"# HELP {Name} {_help}\n# TYPE {Name} {_type}\n");
        if (_series.Count == 0 && _type == "counter")
        {
            // Present from the start, so that a rule that watches it sees the first count as a change.
            Line(text, Name, string.Empty, 0);
        }

        foreach (var (labels, series) in _series)
        {
            if (series.Counts is { } counts)
            {
                Histogram(text, labels, series, counts);
            }
            else
            {
                Line(text, Name, labels, series.Sum);
            }
        }

        return text.ToString();
    }

    private void Histogram(StringBuilder text, string labels, Series series, long[] counts)
    {
        var before = labels.Length == 0 ? string.Empty : labels + ",";
        for (var i = 0; i < counts.Length; i++)
        {
            Line(text, Name + "_bucket", FormattableString.Invariant($"{before}le=\"{Buckets[i]}\""), counts[i]);
        }

        Line(text, Name + "_bucket", before + "le=\"+Inf\"", series.Count);
        Line(text, Name + "_sum", labels, series.Sum);
        Line(text, Name + "_count", labels, series.Count);
    }

    private static void Line(StringBuilder text, string name, string labels, double value) =>
        text.Append(name).Append(labels.Length == 0 ? string.Empty : $"{{{labels}}}").Append(' ').Append(value.ToString(CultureInfo.InvariantCulture)).Append('\n');

    private static string Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var text = new StringBuilder();
        foreach (var (name, value) in tags)
        {
            var escaped = (value?.ToString() ?? string.Empty).Replace("\\", "\\\\", StringComparison.Ordinal)
                .Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
            text.Append(text.Length == 0 ? string.Empty : ",").Append(CultureInfo.InvariantCulture, $"{name}=\"{escaped}\"");
        }

        return text.ToString();
    }

    private sealed class Series(long[]? counts)
    {
        /// <summary>By bucket, each with those below it; null for what is no histogram.</summary>
        public long[]? Counts { get; } = counts;

        public long Count { get; private set; }

        public double Sum { get; private set; }

        public void Take(double value, bool observed)
        {
            Sum = observed ? value : Sum + value;
            Count++;
            for (var i = 0; Counts is not null && i < Counts.Length; i++)
            {
                Counts[i] += value <= Buckets[i] ? 1 : 0;
            }
        }
    }
}
