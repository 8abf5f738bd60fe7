using System.Text.RegularExpressions;

namespace Fleet.Contracts;

/// <summary>The form of every id that a client chooses: 1 to 64 characters, letters, digits, dot, underscore, hyphen; no dot, underscore or hyphen first.</summary>
public static partial class ResourceId
{
    public const string Pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

    public static bool IsValid(string? id) => id is not null && Regex().IsMatch(id);

    // \z, not $: $ would accept a trailing newline.
    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    private static partial Regex Regex();
}
