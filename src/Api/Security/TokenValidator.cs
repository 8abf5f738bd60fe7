using System.Security.Claims;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Security;

namespace Fleet.Api.Security;

internal static class TokenValidator
{
    private const int MaximumName = 128;
    private static readonly TimeSpan Default = TimeSpan.FromDays(90);

    public static Problem? Validate(TokenRequest request, ClaimsPrincipal creator, out TimeSpan lifetime)
    {
        var errors = new ValidationErrors();
        lifetime = Default;
        if (request.Name.Length is 0 or > MaximumName || request.Name.Any(char.IsControl))
        {
            errors.Add("$.name", $"1 to {MaximumName} characters, no control characters.");
        }

        if (request.Scopes.Count == 0 || request.Scopes.Count > Scopes.All.Length || request.Scopes.Distinct().Count() != request.Scopes.Count)
        {
            errors.Add("$.scopes", "At least one, each once.");
        }

        for (var i = 0; i < Math.Min(request.Scopes.Count, Scopes.All.Length); i++)
        {
            // Nobody gives what they do not have. This shuts out `agent` too: an administrator does not have it either.
            if (!Scopes.All.Contains(request.Scopes[i]) || !creator.Has(request.Scopes[i]))
            {
                errors.Add($"$.scopes[{i}]", "A scope that you have yourself; never agent.");
            }
        }

        if (request.ExpiresIn is not null && (!DurationText.TryParse(request.ExpiresIn, out lifetime) || lifetime <= TimeSpan.Zero))
        {
            errors.Add("$.expiresIn", "A duration such as 12h or 30d, at most 3650d.");
        }

        return errors.ToProblem();
    }
}
