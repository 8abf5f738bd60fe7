using System.Security.Cryptography;
using System.Text;

namespace Fleet.Contracts.Security;

/// <summary>
/// The text form of every bearer token: <c>fleet_{id}_{secret}</c>, id 16 and secret 64 lower-case hex digits. The id finds
/// the stored row, the SHA-256 of the whole text is compared in constant time; secret scanners can find the prefix.
/// </summary>
public static class TokenText
{
    public const string Prefix = "fleet_";
    private const int IdLength = 16;
    private const int SecretLength = 64;

    public static string Create() =>
        $"{Prefix}{RandomNumberGenerator.GetHexString(IdLength, lowercase: true)}_{RandomNumberGenerator.GetHexString(SecretLength, lowercase: true)}";

    public static bool TryGetId(string? token, out string id)
    {
        id = string.Empty;
        if (token is null
            || token.Length != Prefix.Length + IdLength + 1 + SecretLength
            || !token.StartsWith(Prefix, StringComparison.Ordinal)
            || token[Prefix.Length + IdLength] != '_')
        {
            return false;
        }

        id = token.Substring(Prefix.Length, IdLength);
        return true;
    }

    public static string Hash(string token) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token)));
}
