using Fleet.HostAgent.ControlPlane;

namespace Fleet.HostAgent.Tests;

public sealed class JoinTokenTests
{
    [Theory]
    [InlineData("fleet_join_abc\n", "fleet_join_abc")]
    [InlineData("""{"id":"1","token":"fleet_join_abc","expiresAt":"2026-01-31T00:00:00Z"}""", "fleet_join_abc")]
    [InlineData("""{"code":"unauthenticated"}""", """{"code":"unauthenticated"}""")]
    [InlineData("""{"token":5}""", """{"token":5}""")]
    [InlineData("12345", "12345")]
    [InlineData("", "")]
    public void File_HoldsTheTokenAlone_OrTheAnswerThatGaveIt(string text, string token) => Assert.Equal(token, Enrollment.TokenIn(text));
}
