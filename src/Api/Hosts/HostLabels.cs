using System.Text.Json;
using System.Text.RegularExpressions;
using Fleet.Api.Problems;
using Fleet.Contracts;

namespace Fleet.Api.Hosts;

/// <summary>What an operator calls a host by: names and values, kept as one JSON object.</summary>
internal static partial class HostLabels
{
    private const int MaximumLabels = 64;
    private const int MaximumValue = 256;
    private const string NameForm = "1 to 64 letters, digits and . _ - / of which the first is a letter or digit.";

    public static Problem? Validate(IReadOnlyDictionary<string, string> labels)
    {
        var errors = new ValidationErrors();
        if (labels.Count > MaximumLabels)
        {
            errors.Add("$", $"At most {MaximumLabels} labels.");
            return errors.ToProblem();
        }

        foreach (var (name, value) in labels)
        {
            if (!Name().IsMatch(name))
            {
                errors.Add("$", $"A label's name is {NameForm}");
            }
            else if (value is null || value.Length > MaximumValue || value.Any(char.IsControl))
            {
                errors.Add($"$.{name}", $"A string of at most {MaximumValue} characters, no control characters.");
            }
        }

        return errors.ToProblem();
    }

    /// <summary>Sorted, so that equal labels are equal text.</summary>
    public static string ToJson(IReadOnlyDictionary<string, string> labels) => JsonSerializer.Serialize(
        new SortedDictionary<string, string>(labels.ToDictionary(), StringComparer.Ordinal), FleetJson.Default.IReadOnlyDictionaryStringString);

    /// <summary>
    /// How the label stands in <see cref="ToJson"/>. A quotation mark in a value is stored escaped, so that this text can stand
    /// nowhere but where the label is.
    /// </summary>
    public static string AsStored(KeyValuePair<string, string> label) => ToJson(new Dictionary<string, string> { [label.Key] = label.Value })[1..^1];

    public static IReadOnlyList<KeyValuePair<string, string>> ReadFilter(IReadOnlyList<string> texts, ValidationErrors errors)
    {
        var labels = new List<KeyValuePair<string, string>>();
        foreach (var text in texts)
        {
            var equals = text.IndexOf('=', StringComparison.Ordinal);
            if (texts.Count > MaximumLabels || equals < 0 || !Name().IsMatch(text[..equals]) || text.Length - equals - 1 > MaximumValue)
            {
                errors.Add("label", $"name=value, at most {MaximumLabels} times; the name is {NameForm}");
                break;
            }

            labels.Add(new KeyValuePair<string, string>(text[..equals], text[(equals + 1)..]));
        }

        return labels;
    }

    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._/-]{0,63}\z")]
    private static partial Regex Name();
}
