using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Fleet.Data.Migrations
{
    /// <inheritdoc />
    public partial class Indexes : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateIndex(
                name: "IX_migrations_Vm_Id",
                table: "migrations",
                columns: new[] { "Vm", "Id" });

            migrationBuilder.CreateIndex(
                name: "IX_hits_LastAt",
                table: "hits",
                column: "LastAt");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropIndex(
                name: "IX_migrations_Vm_Id",
                table: "migrations");

            migrationBuilder.DropIndex(
                name: "IX_hits_LastAt",
                table: "hits");
        }
    }
}
